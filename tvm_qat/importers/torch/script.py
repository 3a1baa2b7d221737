"""TorchScript modules, traced or scripted: with FakeQuantize modules, or converted to `quantized::`.

pt                 which files and modules come here
script_file        what a file holds, and whether it may be loaded
script_graph       the walk: branches, loops, submodules, names
script_values      what is computed at import
script_quantized   quantized tensors and packed weights
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier, without_translation
from tvm_qat.importers.options import ImportOptions, refuse_encodings
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.torch.script_graph import Call, Walk
from tvm_qat.importers.torch.script_quantized import (
    OPERATORS,
    Quantized,
    constant,
    keeps_quantized,
    regrid,
)
from tvm_qat.importers.torch.script_values import SCALAR_TYPES, UNKNOWN, can_compute, is_expr
from tvm_qat.importers.torch.table import converter_of
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, TensorType, TupleGetItem, TupleType, Var, const


def import_script(module: Any, file: str, options: ImportOptions) -> IRModule:
    """module : a torch.jit.ScriptModule; it is not changed, and nothing of it runs."""
    refuse_encodings(options, "TorchScript")
    try:
        graph = module.inlined_graph
    except (RuntimeError, AttributeError):
        raise InputError(located("has no method 'forward'", file=file)) from None
    inputs = _inputs(module, graph, options.input_shapes, file)
    variables = {name: value for name, value in inputs.items() if isinstance(value, Var)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says of every quantized tensor that it is deprecated
            _check_operators(module, graph, inputs, file)
            return write_main(
                variables,
                lambda write: _outputs(Walk(Translation(write)).run(graph, [module, *inputs.values()])),
                file,
            )
    except InputError as error:
        raise error if str(error).startswith(file) else type(error)(located(str(error), file=file)) from None


def _inputs(module: Any, graph: Any, shapes: Mapping[str, Sequence[int]], file: str) -> dict[str, Any]:
    """Parameters by name; an optional input that gets no shape keeps its default, a plain value."""
    arguments = module.forward.schema.arguments[1:]
    unknown = set(shapes) - {argument.name for argument in arguments}
    if unknown:
        names = ", ".join(repr(argument.name) for argument in arguments)
        raise InputError(located(f"has no input {sorted(unknown)[0]!r}; it has {names}", file=file))
    taken: set[str] = set()
    found: dict[str, Any] = {}
    for argument, value in zip(arguments, list(graph.inputs())[1:], strict=True):
        shape = shapes.get(argument.name) or _recorded(value)
        if shape is None and argument.has_default_value():
            found[argument.name] = argument.default_value
            continue
        if str(argument.type) not in ("Tensor", "Optional[Tensor]"):
            reason = f"input {argument.name!r} is of type {argument.type}; only tensors are supported"
            raise UnsupportedError(located(reason, file=file))
        if shape is None:
            reason = f"TorchScript does not store the shape of input {argument.name!r}"
            remedy = f"give input_shapes, --input-shapes '{argument.name}:[1,3,224,224]'"
            raise InputError(located(reason, file=file, remedy=remedy))
        var = Var(identifier(argument.name, taken), TensorType(list(shape), _dtype(value)))
        found[argument.name] = var
    return found


def _recorded(value: Any) -> list[int] | None:
    """The shape that tracing left; it is not saved to files."""
    sizes = value.type().sizes() if value.type().kind() == "TensorType" else None
    return sizes if sizes and all(isinstance(size, int) for size in sizes) else None


def _dtype(value: Any) -> str:
    """What tracing recorded; else int64 for what indexes an embedding, and float32."""
    known = value.type().kind() == "TensorType"
    recorded = str((value.type().dtype() if known else None) or "").removeprefix("torch.")
    if recorded:
        return recorded
    indexes = any(use.user.kind() == "aten::embedding" and use.offset == 1 for use in value.uses())
    return "int64" if indexes else "float32"


def _outputs(results: Sequence[Any]) -> dict[str, Expr]:
    values = dict(_named("output", results[0]))
    if not values or not all(is_expr(value) for value in values.values()):
        raise UnsupportedError("an output is no tensor that depends on the inputs")
    return values


def _named(name: str, value: Any) -> list[tuple[str, Any]]:
    """Tensors of nested outputs: output_0, output_1, or by the keys of a dictionary."""
    if isinstance(value, dict):
        return [pair for key, part in value.items() for pair in _named(str(key), part)]
    if isinstance(value, list | tuple):
        return [pair for i, part in enumerate(value) for pair in _named(f"{name}_{i}", part)]
    return [] if value is None else [(name, value.real_expr if isinstance(value, Quantized) else value)]


def _check_operators(module: Any, graph: Any, inputs: Mapping[str, Any], file: str) -> None:
    """Raises UnsupportedError that lists all operators without a translation."""
    survey = Survey()
    unknown = [UNKNOWN if isinstance(value, Var) else value for value in inputs.values()]
    Walk(survey).run(graph, [module, *unknown])
    if survey.missing:
        raise without_translation(survey.missing, file)


class Survey:
    """Looks through a graph without inputs. missing : names by operator."""

    def __init__(self) -> None:
        self.missing: dict[str, list[str]] = {}

    def operator(self, call: Call) -> list[Any]:
        if not (converter_of(call.op) or call.op in OPERATORS or can_compute(call.op)):
            self.missing.setdefault(call.op, []).append(call.name)
        return [UNKNOWN] * call.results


class Translation:
    """Writes what the walk hands on."""

    def __init__(self, write: Writer) -> None:
        self._write = write

    def operator(self, call: Call) -> list[Any]:
        with self._write.node(call.name, call.op):
            if call.op in OPERATORS:
                arguments = {name: self._operand(value) for name, value in call.arguments.items()}
                made = OPERATORS[call.op](self._write, call.name, arguments)
            else:
                made = self._float(call)
            return self._results(call, made)

    def _float(self, call: Call) -> Any:
        """A float operator, or one that torch also runs on quantized tensors."""
        flat = [part for v in call.operands for part in (v if isinstance(v, list) else [v])]
        source = next((part for part in flat if isinstance(part, Quantized)), None)
        if source is not None and not keeps_quantized(call.op):
            raise UnsupportedError(f"{call.op} of a quantized tensor is not supported")
        converter = converter_of(call.op)
        if converter is None:
            raise UnsupportedError(f"{call.op} has no translation")
        arguments = {name: self._argument(name, value) for name, value in call.arguments.items()}
        made = self._bound(converter(self._write, Node(call.name, call.op, arguments)))
        if source is None:
            return made
        if not isinstance(made, list):
            return regrid(self._write, call.op, source, made)
        return [regrid(self._write, call.op, source, part) for part in made]

    def _bound(self, made: Any) -> Any:
        """Variables for what a converter returned; a tuple of TVM's becomes a list."""
        if isinstance(made, list | tuple):
            return [self._write(part) for part in made if part is not None]
        value = self._write(made)
        if isinstance(value.ty, TupleType):
            return [self._write(TupleGetItem(value, i)) for i in range(len(value.ty.fields))]
        return value

    def _results(self, call: Call, made: Any) -> list[Any]:
        return made if isinstance(made, list) and call.results != 1 else [made]

    def _operand(self, value: Any) -> Any:
        """A quantized tensor that the model holds, as one that is computed."""
        if isinstance(value, list):
            return [self._operand(part) for part in value]
        return constant(self._write, value) if getattr(value, "is_quantized", False) else value

    def _argument(self, name: str, value: Any) -> Any:
        """As `Node.args` wants it: expressions, plain values, names of data types."""
        if isinstance(value, Quantized):
            return value.real_expr
        if isinstance(value, list | tuple):
            return [self._argument("", part) for part in value]
        if getattr(value, "is_quantized", False):
            return constant(self._write, value).real_expr
        if hasattr(value, "detach"):
            return const(_array(value))
        if name == "dtype" and isinstance(value, int):
            return SCALAR_TYPES.get(value, str(value))
        return value


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    try:
        values: np.ndarray[Any, Any] = tensor.detach().cpu().contiguous().numpy()
    except (TypeError, RuntimeError):
        raise UnsupportedError(f"a constant of {tensor.dtype} is not supported") from None
    return values
