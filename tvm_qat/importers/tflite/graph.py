"""The walk over the operators of one graph."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier, without_translation
from tvm_qat.importers.options import ImportOptions
from tvm_qat.importers.tflite.model import Graph, Model, Operator, Tensor
from tvm_qat.importers.tflite.node import Node, plain
from tvm_qat.importers.tflite.state import KINDS, handles_of, variable_at, variables_of
from tvm_qat.importers.tflite.table import TABLE
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, TensorType, Var, same_shape, shape_of


@dataclass
class Scope:
    """What the walk knows so far.

    values : tensors as they are stored, by index. state : what each variable holds.
    """

    graph: Graph
    values: dict[int, Expr]
    handles: Mapping[int, str]
    state: dict[str, Expr]
    write: Writer


def translate(model: Model, options: ImportOptions) -> IRModule:
    """One graph as `main`; its inputs and outputs keep the names of their tensors, then variables follow."""
    graph = model.graphs[_chosen(model, options.signature)]
    _check_translatable(model, graph)
    variables = variables_of(model, graph)
    names = _unique([graph.tensors[i].name for i in graph.inputs])
    if set(names) & set(variables):
        raise InputError(located("an input and a variable have one name", file=model.file))
    tensors = [graph.tensors[i] for i in graph.inputs] + [v.tensor for v in variables.values()]
    params = _parameters(model, dict(zip([*names, *variables], tensors, strict=True)), options.input_shapes)
    values: dict[int, Expr] = {i: params[name] for i, name in zip(graph.inputs, names, strict=True)}

    def body(write: Writer) -> dict[str, Expr]:
        scope = Scope(graph, values, handles_of(graph), {name: params[name] for name in variables}, write)
        for operator in graph.operators:
            _translate(scope, operator)
        out_names = _unique([graph.tensors[i].name for i in graph.outputs])
        outputs = {name: _value(scope, i) for name, i in zip(out_names, graph.outputs, strict=True)}
        return outputs | scope.state

    mod = write_main(params, body, model.file)
    begins = {name: v.initial for name, v in variables.items() if v.initial is not None}
    if begins:
        mod["main"] = mod["main"].with_attr("input_initials", begins)
    return mod


def _chosen(model: Model, signature: str | None) -> int:
    """The graph of a signature; without one, the first graph, which is the first signature's."""
    if signature is None:
        return next(iter(model.signatures.values()), 0)
    if signature not in model.signatures:
        known = ", ".join(model.signatures) or "none"
        raise InputError(located(f"it has no signature {signature!r}, only: {known}", file=model.file))
    return model.signatures[signature]


def _check_translatable(model: Model, graph: Graph) -> None:
    missing: dict[str, list[str]] = {}
    for operator in graph.operators:
        if operator.kind not in TABLE and operator.kind not in KINDS:
            missing.setdefault(operator.kind, []).append(operator.name)
    if missing:
        raise without_translation(missing, model.file)
    if not graph.outputs or -1 in graph.outputs or -1 in graph.inputs:
        raise InputError(located("its graph has no outputs, or unnamed ones", file=model.file))


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where the file repeats one or leaves it empty."""
    taken: dict[str, int] = {}
    found = []
    for place, name in enumerate(names):
        taken[name] = taken.get(name, 0) + 1
        found.append(name if name and taken[name] == 1 else f"{name or 'tensor'}_{place}")
    return found


def _parameters(
    model: Model, tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]]
) -> dict[str, Var]:
    unknown = sorted(set(shapes) - set(tensors))
    if unknown:
        reason = f"there is no input {unknown[0]!r}; the inputs are {', '.join(tensors)}"
        raise InputError(located(reason, file=model.file))
    taken: set[str] = set()
    found: dict[str, Var] = {}
    for name, tensor in tensors.items():
        shape = tuple(shapes.get(name, tensor.shape))
        if len(shape) != len(tensor.shape) or min(shape, default=1) < 1:
            reason = f"input {name!r} cannot have the shape {list(shape)}"
            raise InputError(located(reason, file=model.file, remedy="give input_shapes"))
        if tensor.dtype == "resource":
            raise UnsupportedError(located(f"input {name!r} is the handle of a variable", file=model.file))
        found[name] = Var(identifier(name, taken), TensorType(shape, tensor.dtype))
    return found


def _translate(scope: Scope, operator: Operator) -> None:
    graph, values = scope.graph, scope.values
    with scope.write.node(operator.name, operator.kind):
        if operator.kind in KINDS:
            _access(scope, operator)
            return
        operands = tuple(None if i < 0 else _value(scope, i) for i in operator.inputs)
        inputs: tuple[Tensor | None, ...] = tuple(
            None if i < 0 else graph.tensors[i] for i in operator.inputs
        )
        if -1 in operator.outputs:
            raise InputError("one of its results has no tensor")
        outputs = tuple(graph.tensors[i] for i in operator.outputs)
        node = Node(operator, operands, inputs, outputs, scope.write)
        for index, value in zip(operator.outputs, _results(node), strict=True):
            if index in values:
                raise InputError("it writes a tensor that has a value already")
            values[index] = value


def _access(scope: Scope, operator: Operator) -> None:
    """Reading and writing of variables."""
    if operator.kind == "READ_VARIABLE" and operator.outputs:
        scope.values[operator.outputs[0]] = scope.state[variable_at(operator, scope.handles)]
    if operator.kind == "ASSIGN_VARIABLE" and len(operator.inputs) > 1:
        name = variable_at(operator, scope.handles)
        value = _value(scope, operator.inputs[1])
        if not same_shape(shape_of(value), shape_of(scope.state[name])):
            raise InputError(f"the shape of variable {name!r} changes")
        scope.state[name] = value


def _results(node: Node) -> list[Expr]:
    """What the converter makes of it, bound. TVM's type rules raise the errors caught here."""
    try:
        made = TABLE[node.operator.kind](node)
        parts = made if isinstance(made, list) else [made]
        bound = [node.write(part) for part in parts]
    except struct.error:
        raise InputError("its options are damaged") from None
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"its operands do not fit: {first_line(error)}") from None
    if len(bound) != len(node.outputs):
        raise UnsupportedError(f"{len(node.outputs)} results, but {len(bound)} can be translated")
    for value in bound:
        if shape_of(value) is None or min(shape_of(value) or (1,)) < 1:
            raise UnsupportedError("the shape of its result is empty, or known at run time only")
    return bound


def _value(scope: Scope, index: int) -> Expr:
    """A tensor as it is stored. Constants become expressions when they are first read."""
    tensor = scope.graph.tensors[index]
    if index not in scope.values:
        if tensor.data is None:
            raise InputError(f"it reads tensor {tensor.name!r}, to which nothing before it gives a value")
        scope.values[index] = plain(tensor.data, name=tensor.name or None)
    return scope.values[index]


def first_line(error: BaseException) -> str:
    """The message of one of TVM's errors without its stack."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
