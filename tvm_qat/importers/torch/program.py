"""The walk over an exported program, call by call.

torch.export's graphs may still write tensors in place; the variable then stands for the new value
from there on. What depends on weights alone is computed by torch itself (the scaling of a
convolution by its batch norm, say), except for quantization, which stays for the passes to see.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.fx import Node as Call

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.encodings import read_encodings
from tvm_qat.importers.names import without_translation
from tvm_qat.importers.options import ImportOptions
from tvm_qat.importers.torch.chains import written_out
from tvm_qat.importers.torch.constants import (
    CREATING,
    Constants,
    check_size,
    computed,
    dtype_name,
    is_known,
)
from tvm_qat.importers.torch.encoded import Encoded, encoded
from tvm_qat.importers.torch.inputs import Inputs, program_inputs
from tvm_qat.importers.torch.liveness import live_calls, written_views
from tvm_qat.importers.torch.node import Node, is_tensor
from tvm_qat.importers.torch.schema import is_in_place, named, operator_name
from tvm_qat.importers.torch.table import converter_of, is_quantization
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, TupleGetItem, TupleType, dtype_of, shape_of

_ARITHMETIC: dict[Any, Callable[..., Any]] = {
    operator.add: operator.add, operator.sub: operator.sub, operator.mul: operator.mul,
    operator.floordiv: operator.floordiv, operator.mod: operator.mod, operator.neg: operator.neg,
}  # fmt: skip
"""Python functions on sizes; symbolic ones are TVM expressions, which know these operators too."""

_CHECKS = (
    "aten._assert_async", "aten._assert_scalar", "aten._assert_tensor_metadata",
    "aten.sym_constrain_range", "aten.sym_constrain_range_for_size",
)  # fmt: skip
"""Calls that only check what the program relies on."""

_INLINED = ("wrap_with_set_grad_enabled",)
"""Higher-order calls whose body runs as it stands: (flag, graph, operands...)."""

_FOREIGN_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, ArithmeticError)
"""What TVM's operators, and arithmetic of sizes, raise on operands that do not fit."""


@dataclass
class _Scope:
    """values: of each call so far: a known torch.Tensor, an expression, a size, or a list of them."""

    program: Any
    graph: Any
    values: dict[Call, Any]
    constants: Constants
    write: Writer
    encoded: Encoded
    chains: frozenset[Call]


def translate(program: Any, file: str, options: ImportOptions) -> IRModule:
    """A torch.export.ExportedProgram as a module with one function `main`."""
    check_operators(program.graph_module, file)
    inputs = program_inputs(program, file, options.input_shapes)
    chains = written_out(program.graph)
    names = encoded(program, read_encodings(options.encodings, modules=True))

    def body(write: Writer) -> Mapping[str, Expr]:
        scope = _Scope(program, program.graph_module, dict(inputs.values), Constants(), write, names, chains)
        for call in inputs.values:
            _lay_encoding(scope, call)
        returned = _walk(scope)
        return _outputs(scope, inputs, returned)

    return names.finished(write_main(inputs.variables, body, file))


def _lay_encoding(scope: _Scope, call: Call) -> None:
    """The tensor of a call or input is quantized from here on, if an encoding names it."""
    if not scope.encoded.names_tensor(call):
        return
    value = scope.encoded.lay(scope.write, call, _operand(scope, scope.values[call]))
    scope.values[call] = value
    if call.op == "call_function" and is_in_place(call.target._schema):
        scope.values[call.args[0]] = value


def check_operators(module: Any, file: str) -> None:
    """Raises UnsupportedError that lists every operator without a translation."""
    missing: dict[str, list[str]] = {}
    for call in _all_calls(module):
        kind = _kind(call.target)
        known = kind in (*_CHECKS, *_INLINED, "getitem") or call.target in _ARITHMETIC
        if not known and kind != "aten.sym_size" and converter_of(kind) is None and kind not in CREATING:
            missing.setdefault(kind, []).append(call.name)
    if missing:
        raise without_translation(missing, file)


def _all_calls(module: Any) -> list[Call]:
    """The calls of a graph and of the graphs it inlines, without those nothing depends on."""
    live = live_calls(module.graph)
    calls = [call for call in module.graph.nodes if call in live]
    found = [call for call in calls if call.op == "call_function"]
    for call in calls:
        if call.op == "get_attr" and isinstance(getattr(module, call.target, None), torch.fx.GraphModule):
            found += _all_calls(getattr(module, call.target))
    return found


def _kind(target: Any) -> str:
    """`aten.conv2d`, `getitem`, `wrap_with_set_grad_enabled`."""
    if isinstance(target, torch._ops.OpOverload):
        return operator_name(target._schema)
    return getattr(target, "__name__", str(target))


def _walk(scope: _Scope) -> Any:
    """Translates the graph; the values that it returns."""
    live = live_calls(scope.graph.graph)
    for call in scope.graph.graph.nodes:
        if call.op == "output":
            return _looked_up(scope, call.args[0])
        if call.op == "get_attr":
            scope.values[call] = operator.attrgetter(call.target)(scope.graph)
        elif call.op == "call_function" and call in live:
            with scope.write.node(call.name, _kind(call.target)):
                try:
                    scope.values[call] = _value(scope, call)
                except _FOREIGN_ERRORS as error:
                    raise UnsupportedError(f"TVM cannot express it: {first_line(error)}") from None
            scope.encoded.note(call, scope.values[call])
            _lay_encoding(scope, call)
    raise InputError("the graph returns nothing")


def _value(scope: _Scope, call: Call) -> Any:
    kind = _kind(call.target)
    args, kwargs = _looked_up(scope, call.args), _looked_up(scope, call.kwargs)
    if kind in _CHECKS:
        return None
    if kind in _INLINED:
        return _inlined(scope, args)
    if kind == "getitem":
        return args[0][args[1]]
    if call.target in _ARITHMETIC:
        return _ARITHMETIC[call.target](*args)
    if kind == "aten.sym_size":
        return _shape(args[0])[args[1]]
    check_size(_declared_shape(call))
    kept = is_quantization(kind) or call in scope.chains
    if is_known((args, tuple(kwargs.values()))) and not kept:
        value = computed(call.target, args, kwargs)
    else:
        value = _converted(scope, call, kind, args, kwargs)
    if is_in_place(call.target._schema):
        _replace_written(scope, call, value)
    return value


def _shape(value: Any) -> tuple[Any, ...]:
    return tuple(value.shape) if isinstance(value, torch.Tensor) else shape_of(value) or ()


def _looked_up(scope: _Scope, argument: Any) -> Any:
    """An argument of a call with the values of other calls in place of them."""
    if isinstance(argument, Call):
        return scope.values[argument]
    if isinstance(argument, list | tuple):
        return [_looked_up(scope, part) for part in argument]
    if isinstance(argument, Mapping):
        return {key: _looked_up(scope, part) for key, part in argument.items()}
    return argument


def _inlined(scope: _Scope, args: list[Any]) -> Any:
    _flag, graph, *operands = args
    inputs = [call for call in graph.graph.nodes if call.op == "placeholder"]
    values = dict(zip(inputs, operands, strict=True))
    return _walk(replace(scope, graph=graph, values=values))


def _converted(scope: _Scope, call: Call, kind: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
    converter = converter_of(kind)
    if converter is None:
        raise UnsupportedError("it can be computed only from what is known at import")
    operands = named(call.target._schema, args, kwargs, lambda value: _operand(scope, value))
    value = _bound(scope.write, converter(scope.write, Node(call.name, kind, operands)))
    _check_declared(call, value)
    return value


def _operand(scope: _Scope, value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return scope.constants(value)
    if isinstance(value, list | tuple):
        return [_operand(scope, part) for part in value]
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    opaque = isinstance(value, torch.device | torch.layout | torch.memory_format)
    return str(value) if opaque else value


def _bound(write: Writer, made: Any) -> Any:
    """Variables for what a converter returned; None stands for a result that it cannot give."""
    if isinstance(made, list | tuple):
        return [None if part is None else _bound(write, part) for part in made]
    value = write(made)
    if isinstance(value.ty, TupleType):
        return [write(TupleGetItem(value, i)) for i in range(len(value.ty.fields))]
    return value


def _replace_written(scope: _Scope, call: Call, value: Any) -> None:
    """After an in-place call, its first argument and what is the same tensor mean the new value."""
    written = call.args[0]
    others = written_views(scope.graph.graph, call)
    if others:
        names = ", ".join(repr(other.name) for other in others)
        reason = f"it changes a tensor of which {names} shares memory"
        raise UnsupportedError(f"{reason}; write it without in-place operators")
    scope.values[written] = value


def _declared_shape(call: Call) -> list[Any]:
    declared = call.meta.get("val")
    return list(declared.shape) if isinstance(declared, torch.Tensor) else []


def _check_declared(call: Call, value: Any) -> None:
    """The program says what each call returns; a translation that differs must not go on."""
    declared = call.meta.get("val")
    pairs = zip(declared, value, strict=False) if isinstance(declared, list | tuple) else [(declared, value)]
    for expected, found in pairs:
        if not isinstance(expected, torch.Tensor) or not is_tensor(found):
            continue
        shape, wanted = shape_of(found) or (), list(expected.shape)
        fits = len(shape) == len(wanted) and all(
            a == b for a, b in zip(shape, wanted, strict=True) if isinstance(a, int) and isinstance(b, int)
        )
        if not fits or dtype_of(found) != dtype_name(expected.dtype):
            reason = f"its result would be {dtype_of(found)} {list(shape)}"
            raise UnsupportedError(f"{reason}, not {dtype_name(expected.dtype)} {wanted}")


def first_line(error: BaseException) -> str:
    """What a TVM error says, without the C++ trace around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("File ", "Traceback", "[bt]", "^"))]
    return (said[-1] if said else type(error).__name__)[:300]


def _outputs(scope: _Scope, inputs: Inputs, returned: Any) -> dict[str, Expr]:
    """The user's outputs by name; those that only carry updated statistics are left out."""
    found: dict[str, Expr] = {}
    for name, value in zip(inputs.output_names, returned, strict=True):
        if name is None:
            continue
        value = _operand(scope, value)
        if not is_tensor(value):
            reason = f"output {name!r} is not a tensor"
            raise UnsupportedError(located(reason, file=inputs.file))
        unique = name if name not in found else f"{name}_{len(found)}"
        found[unique] = value
    if not found:
        raise InputError(located("the program returns nothing", file=inputs.file))
    return found
