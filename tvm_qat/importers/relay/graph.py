"""The walk over the program: every call of a function is replaced by its body."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import without_translation
from tvm_qat.importers.relay.inputs import parameters
from tvm_qat.importers.relay.load import Model
from tvm_qat.importers.relay.metadata import CONSTANT
from tvm_qat.importers.relay.node import Context, Node, Value, bound
from tvm_qat.importers.relay.syntax import (
    Block,
    Call,
    Constant,
    Function,
    Global,
    Meta,
    Projection,
    TupleOf,
    Variable,
)
from tvm_qat.importers.relay.syntax import Node as Tree
from tvm_qat.importers.relay.table import CONVERTERS
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, TensorType, const, shape_of

DEEPEST_CALLS = 40
MOST_CALLS = 30_000
MOST_OUTPUTS = 1_000


@dataclass(frozen=True, eq=False)
class Closure:
    """A function of the program with the values that its body sees."""

    function: Function
    values: Mapping[str, Value]


@dataclass
class Walk:
    """context : of the converters. calls : how many were translated. depth : of functions."""

    model: Model
    context: Context
    constants: dict[int, Expr] = field(default_factory=dict)
    calls: int = 0
    depth: int = 0
    binding: str = ""


def translate(model: Model, input_shapes: Mapping[str, Sequence[int]]) -> IRModule:
    """The program as a module with one function `main`."""
    with _placed(model.file):
        _check_operators(model)
        inputs, known = parameters(model, input_shapes)

    def body(write: Writer) -> Mapping[str, Expr]:
        with _placed(model.file):
            walk = Walk(model, Context(write))
            return _outputs(_block(walk, model.functions["main"].body, {**inputs, **known}))

    return write_main(inputs, body, model.file)


@contextmanager
def _placed(file: str) -> Iterator[None]:
    """Errors raised inside begin with the file's name."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise type(error)(text if text.startswith(f"{file}: ") else located(text, file=file)) from None
    except RecursionError:
        reason = "its functions and expressions are nested too deeply"
        raise UnsupportedError(located(reason, file=file)) from None


def _check_operators(model: Model) -> None:
    """All operators without a converter at once, in main and what it calls."""
    found: list[tuple[int, str, str]] = []
    waiting, seen = ["main"], {"main"}
    while waiting:
        for where, node in _nodes(model.functions[waiting.pop()]):
            if isinstance(node, Global) and node.name in model.functions and node.name not in seen:
                seen.add(node.name)
                waiting.append(node.name)
            if isinstance(node, Call) and isinstance(node.callee, str) and node.callee not in CONVERTERS:
                found.append((node.line, node.callee, source_name(node, where)))
    missing: dict[str, list[str]] = {}
    for _, kind, name in sorted(found):
        missing.setdefault(kind, []).append(name)
    if missing:
        raise without_translation(missing, model.file)


def _nodes(root: Tree) -> Iterator[tuple[str, Tree]]:
    """Every node below `root` with the variable that its binding defines; without recursion."""
    waiting: list[tuple[str, Tree]] = [("", root)]
    while waiting:
        where, node = waiting.pop()
        yield where, node
        if isinstance(node, Block):
            waiting += [(name, value) for name, value in node.bindings] + [("", node.result)]
        elif isinstance(node, Call):
            waiting += [(where, arg) for arg in node.args]
            waiting += [] if isinstance(node.callee, str) else [(where, node.callee)]
        elif isinstance(node, TupleOf):
            waiting += [(where, part) for part in node.parts]
        elif isinstance(node, Projection):
            waiting.append((where, node.whole))
        elif isinstance(node, Function):
            waiting.append((where, node.body))


def source_name(call: Call, binding: str) -> str:
    """The node that a frontend noted; else the printed variable and operator, else the line."""
    if call.span:
        return call.span
    place = f"%{binding}" if binding else f"line {call.line}"
    return f"{place} {call.callee}"


# ---------------------------------------------------------------- the tree


def _block(walk: Walk, block: Block, values: Mapping[str, Value]) -> Value:
    scope = dict(values)
    outer = walk.binding
    for name, node in block.bindings:
        walk.binding = name
        scope[name] = _value(walk, node, scope)
    walk.binding = ""
    result = _value(walk, block.result, scope)
    walk.binding = outer
    return result


def _value(walk: Walk, node: Tree, scope: Mapping[str, Value]) -> Value:
    if isinstance(node, Variable):
        return _variable(node, scope)
    if isinstance(node, Constant):
        return const(node.value)
    if isinstance(node, Call):
        return _call(walk, node, scope)
    if isinstance(node, TupleOf):
        return tuple(_value(walk, part, scope) for part in node.parts)
    if isinstance(node, Projection):
        return _projected(_value(walk, node.whole, scope), node.index, node.line)
    if isinstance(node, Meta):
        return _constant(walk, node)
    if isinstance(node, Function):
        return Closure(node, scope)
    if isinstance(node, Block):
        return _block(walk, node, scope)
    if node.name not in walk.model.functions:
        raise InputError(f"line {node.line}: there is no function @{node.name}")
    return Closure(walk.model.functions[node.name], {})


def _variable(node: Variable, scope: Mapping[str, Value]) -> Value:
    """`%3.0` is a projection of `%3`, unless a variable is called so."""
    name = node.name
    indices: list[int] = []
    while name not in scope:
        name, dot, digits = name.rpartition(".")
        if not dot or not (digits.isascii() and digits.isdigit()) or len(digits) > 9:
            raise InputError(f"line {node.line}: %{node.name} is not defined")
        indices.append(int(digits))
    value = scope[name]
    for index in reversed(indices):
        value = _projected(value, index, node.line)
    return value


def _projected(value: Value, index: int, line: int) -> Value:
    if not isinstance(value, tuple) or not 0 <= index < len(value):
        what = f"a tuple of {len(value)}" if isinstance(value, tuple) else "no tuple"
        raise InputError(f"line {line}: there is no part {index}: it is {what}")
    return value[index]


def _constant(walk: Walk, node: Meta) -> Expr:
    if node.kind != CONSTANT:
        raise UnsupportedError(f"line {node.line}: meta[{node.kind}] is not supported")
    if node.index not in walk.constants:
        walk.constants[node.index] = const(walk.model.metadata.constant(node.index))
    return walk.constants[node.index]


def _call(walk: Walk, call: Call, scope: Mapping[str, Value]) -> Value:
    walk.calls += 1
    if walk.calls > MOST_CALLS:
        raise InputError(f"line {call.line}: more than {MOST_CALLS} calls, counted with their functions' own")
    if not isinstance(call.callee, str):
        return _inlined(walk, call, scope)
    args = tuple(_value(walk, arg, scope) for arg in call.args)
    name = source_name(call, walk.binding)
    with walk.context.write.node(name, call.callee, f", line {call.line}"):
        return _translated(walk.context, Node(call.callee, args, call.attrs))


def _translated(context: Context, node: Node) -> Value:
    """What the converter makes of the node; TVM's own complaints become ours."""
    try:
        return bound(context, CONVERTERS[node.op](context, node))
    except (RuntimeError, ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(f"its operands do not fit: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]


def _inlined(walk: Walk, call: Call, scope: Mapping[str, Value]) -> Value:
    assert not isinstance(call.callee, str)
    callee = _value(walk, call.callee, scope)
    if not isinstance(callee, Closure):
        raise InputError(f"line {call.line}: what is called here is no function")
    params = callee.function.params
    if len(params) != len(call.args):
        raise InputError(f"line {call.line}: {len(call.args)} arguments for {len(params)} parameters")
    args = [_value(walk, arg, scope) for arg in call.args]
    if walk.depth >= DEEPEST_CALLS:
        reason = f"line {call.line}: functions call each other more than {DEEPEST_CALLS} levels deep"
        raise UnsupportedError(f"{reason} (recursion is not supported)")
    names = [name for name, _ in params]
    walk.depth += 1
    result = _block(walk, callee.function.body, {**callee.values, **dict(zip(names, args, strict=True))})
    walk.depth -= 1
    return result


def _outputs(result: Value) -> dict[str, Expr]:
    """One tensor is `output`; the parts of a tuple are `output0`, `output1`, ..."""
    parts = list(islice(_flattened(result), MOST_OUTPUTS + 1))
    if len(parts) > MOST_OUTPUTS:
        raise InputError(f"@main returns more than {MOST_OUTPUTS} tensors")
    for part in parts:
        if not isinstance(getattr(part, "ty", None), TensorType) or shape_of(part) is None:
            raise UnsupportedError("a result of @main is not a tensor")
    if not parts:
        raise InputError("@main returns nothing")
    names = ["output"] if len(parts) == 1 else [f"output{i}" for i in range(len(parts))]
    return dict(zip(names, parts, strict=True))


def _flattened(value: Any) -> Iterator[Any]:
    waiting = [value]
    while waiting:
        first = waiting.pop()
        if isinstance(first, tuple):
            waiting += reversed(first)
        else:
            yield first
