"""The walk over a TorchScript graph: submodules, branches and loops resolved, operators handed on.

Nothing is run by TorchScript's own interpreter, and torch.jit.freeze is not used: it would compute
fake-quantized weights and so lose what training said. Buffers are known, so a branch on
`observer_enabled` or on a size is taken or passed over here, as it would be when the model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.torch.script_file import first_line
from tvm_qat.importers.torch.script_values import PYTHON, QUERIES, UNKNOWN, computed, is_expr, is_known

_MOST_ROUNDS = 1000
_FAULTS = (RuntimeError, ValueError, TypeError, IndexError, KeyError, ZeroDivisionError, AttributeError)


_INDEXING = ("aten.__getitem__", "aten.slice", "aten.pop", "aten.insert", "aten._set_item")


class Visitor(Protocol):
    """Takes the operators whose operands are not all known."""

    def operator(self, call: Call) -> list[Any]:
        """The results, as many as `call.results`."""


class Call:
    """One operator: `op` like Node.op, operands in the order of its schema.

    name : unique; the submodule it lies in, and the operator where one submodule has several.
    """

    def __init__(self, node: Any, name: str, operands: Sequence[Any]) -> None:
        import torch

        self.name, self.operands = name, list(operands)
        self.op = op_of(node)
        self.results = node.outputsSize()
        text = node.schema()
        schema = None if text == "(no schema)" else torch._C.parse_schema(text)
        arguments = schema.arguments if schema else []
        self.schema = text
        names = [argument.name for argument in arguments]
        self.arguments = dict(zip(names, operands, strict=False))
        first = arguments[0].alias_info if arguments else None
        self.in_place = bool(first and first.is_write) and node.kind().endswith("_")


def op_of(node: Any) -> str:
    """`aten.conv2d`; an operator in place has the name of its functional twin."""
    space, _, name = node.kind().partition("::")
    twin = name.endswith("_") and not name.endswith("__")
    op = f"{space}.{name[:-1] if twin else name}"
    return _TWINS.get(op, op)


_TWINS = {"aten._convolution": "aten.convolution"}
"""Operators that only tracing writes, and those that they are with more arguments."""


class Walk:
    """Runs a graph once."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._values: dict[str, Any] = {}
        self._names: set[str] = set()
        self._paths: dict[str, str] = {}

    def run(self, graph: Any, inputs: Sequence[Any]) -> list[Any]:
        """The graph's outputs; inputs: the module itself, then what its `forward` takes."""
        return self._block(graph, inputs)

    def _block(self, block: Any, inputs: Sequence[Any]) -> list[Any]:
        for value, known in zip(block.inputs(), inputs, strict=True):
            self._values[value.debugName()] = known
        for node in block.nodes():
            results = self._node(node)
            for value, result in zip(node.outputs(), results, strict=True):
                self._values[value.debugName()] = result
        return [self._values[value.debugName()] for value in block.outputs()]

    def _node(self, node: Any) -> list[Any]:
        control = _CONTROL.get(node.kind())
        if control is not None:
            return control(self, node)
        operands = [self._values[value.debugName()] for value in node.inputs()]
        if node.kind() == "prim::GetAttr":
            path = self._paths.get(next(node.inputs()).debugName(), "")
            self._paths[node.output().debugName()] = f"{path}.{node.s('name')}".lstrip(".")
        primitive = _PRIMITIVES.get(node.kind())
        if primitive is not None:
            return primitive(node, operands)
        return self._operator(node, Call(node, self._name(node), operands))

    def _operator(self, node: Any, call: Call) -> list[Any]:
        known = is_known(call.operands)
        if call.in_place and known and not isinstance(call.operands[0], list | dict):
            reason = "it changes a tensor of the model while it runs"
            raise UnsupportedError(f"'{call.name}': {reason}; disable observers before tracing")
        try:
            found = _resolved(call, known)
        except InputError:
            raise
        except _FAULTS as error:
            raise InputError(f"'{call.name}' ({call.op}): {first_line(error)}") from None
        if found is not None:
            return found
        self._names.add(call.name)
        results = self._visitor.operator(call)
        if call.in_place:
            self._replace(node, results[0])
        return results

    def _replace(self, node: Any, new: Any) -> None:
        """After an operator in place every name of its operand means the result."""
        operand = next(node.inputs())
        base = operand
        while _is_view(base.node()):
            base = next(base.node().inputs())
            if len(base.uses()) > 1:
                raise UnsupportedError("an operator that writes into a part of a tensor is not supported")
        old = self._values[operand.debugName()]
        for name, value in self._values.items():
            if value is old:
                self._values[name] = new

    def _name(self, node: Any) -> str:
        """Where the operator lies in the model; with the operator where that is taken, or not known."""
        scope = _traced_scope(node) or self._owner(node) or _inlined_scope(node)
        name = scope
        if not scope or scope in self._names:
            name = f"{scope}/{op_of(node).partition('.')[2]}".lstrip("/")
        unique, count = name, 1
        while unique in self._names:
            unique, count = f"{name}_{count}", count + 1
        return unique

    def _owner(self, node: Any) -> str:
        """The submodule whose parameter or buffer is an operand."""
        for value in node.inputs():
            path = self._paths.get(value.debugName())
            if path is not None:
                return path.rpartition(".")[0].removesuffix("._packed_params")
        return ""

    def _if(self, node: Any) -> list[Any]:
        condition = self._values[next(node.inputs()).debugName()]
        yes, no = node.blocks()
        if condition is not UNKNOWN:
            if not is_known(condition):
                raise UnsupportedError("a branch that depends on data is not supported")
            return self._block(yes if condition else no, ())
        for block in (yes, no):
            if not any(inner.kind() == "prim::RaiseException" for inner in block.nodes()):
                self._block(block, ())
        return [UNKNOWN] * node.outputsSize()

    def _loop(self, node: Any) -> list[Any]:
        most, condition, *carried = [self._values[value.debugName()] for value in node.inputs()]
        (body,) = node.blocks()
        if most is UNKNOWN or condition is UNKNOWN:
            self._block(body, [UNKNOWN] * len(list(body.inputs())))
            return [UNKNOWN] * node.outputsSize()
        rounds = 0
        while rounds < most and condition:
            condition, *carried = self._block(body, [rounds, *carried])
            if condition is UNKNOWN:
                return [UNKNOWN] * node.outputsSize()
            rounds += 1
            if rounds > _MOST_ROUNDS or not is_known(condition):
                raise UnsupportedError("a loop that depends on data, or is very long, is not supported")
        return carried


def _resolved(call: Call, known: bool) -> list[Any] | None:
    """The results of an operator that needs no code; None for all others."""
    first = call.operands[0] if call.operands else None
    if call.op in _INDEXING and UNKNOWN in call.operands[1:]:
        return [UNKNOWN] * call.results
    if call.op in PYTHON and isinstance(first, list | dict):
        return [PYTHON[call.op](*call.operands)][: call.results]
    if known:
        found = computed(call.op, call.schema, call.operands)
        return None if found is None else list(found)[: call.results]
    if call.op == "prim.is_quantized" and first is not UNKNOWN:
        return [not is_expr(first)]
    if call.op in QUERIES and _is_tensor(first):
        return [QUERIES[call.op](_tensor(first), *call.operands[1:])]
    return None


def _traced_scope(node: Any) -> str:
    scope: str = node.scopeName().rpartition("/")[2]
    return scope.removeprefix("__module").removeprefix(".")


def _inlined_scope(node: Any) -> str:
    """Of a scripted graph: `layer(Block).conv(Conv2d)`, with parts that inlining could not name."""
    parts = [part.partition("(")[0] for part in (node.getModuleHierarchy() or "").split(".")]
    return ".".join(part for part in parts if part and "UNKNOWN" not in part and part != "SELF")


def _get_attribute(node: Any, operands: Sequence[Any]) -> list[Any]:
    name = node.s("name")
    value = getattr(operands[0], name)
    if name == "training":
        return [False]
    if name == "observer_enabled" and hasattr(operands[0], "fake_quant_enabled"):
        # Deployment has no observers: ranges are what training left in the buffers.
        return [value * 0]
    return [value]


def _raise(_node: Any, operands: Sequence[Any]) -> list[Any]:
    raise InputError(f"the model refuses its input: {operands[0]}")


def _constant(node: Any, _operands: Sequence[Any]) -> list[Any]:
    return [node.output().toIValue()]


_CONTROL: dict[str, Callable[[Walk, Any], list[Any]]] = {"prim::If": Walk._if, "prim::Loop": Walk._loop}
_PRIMITIVES: dict[str, Callable[[Any, Sequence[Any]], list[Any]]] = {
    "prim::Constant": _constant,
    "prim::GetAttr": _get_attribute,
    "prim::RaiseException": _raise,
    "prim::ListConstruct": lambda _, operands: [list(operands)],
    "prim::TupleConstruct": lambda _, operands: [tuple(operands)],
    "prim::DictConstruct": lambda _, operands: [dict(zip(operands[::2], operands[1::2], strict=True))],
    "prim::ListUnpack": lambda node, operands: _unpacked(node, operands[0]),
    "prim::TupleUnpack": lambda node, operands: _unpacked(node, operands[0]),
    "prim::Uninitialized": lambda *_: [None],
    "prim::Print": lambda *_: [],
}


def _unpacked(node: Any, values: Any) -> list[Any]:
    return [UNKNOWN] * node.outputsSize() if values is UNKNOWN else list(values)


def _is_tensor(value: Any) -> bool:
    return is_expr(value) or hasattr(value, "real_expr")


def _tensor(value: Any) -> Any:
    return value if is_expr(value) else value.real_expr


def _is_view(node: Any) -> bool:
    """Whether a result shares memory with an operand, by the schema."""
    import torch

    if not node.kind().startswith("aten::") or node.schema() == "(no schema)":
        return False
    returns = torch._C.parse_schema(node.schema()).returns
    return any(value.alias_info is not None and not value.alias_info.is_write for value in returns)
