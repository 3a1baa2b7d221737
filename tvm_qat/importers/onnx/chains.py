"""Which nodes write fake quantization out: they are kept even where all they read is constant.

A weight's chain, Div -> Round -> Clip -> Mul, computes nothing at run time, but it says what the
passes must know: its scale and its range. Folded, it would leave float numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

from onnx import NodeProto, TensorProto

from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.tensors import storage_dtype
from tvm_qat.ir import Expr, relax

_SCALED = ("Div", "Mul")

_BETWEEN = ("Add", "Cast", "Clip", "Max", "Min", "Sub")
_ROUNDED = ("Ceil", "Floor", "Round")
_INTEGERS = (
    TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16, TensorProto.INT32,
    TensorProto.INT64,
)  # fmt: skip


def written_out(nodes: Iterable[NodeProto]) -> frozenset[str]:
    """The names of the nodes from a division to the multiplication after a rounding."""
    makers, readers = _links(nodes)
    found: set[str] = set()
    for node in [made for made in makers.values() if _rounds(made)]:
        before, after = _reach(node, makers, up=True), _reach(node, readers, up=False)
        if before and after:
            found.update(before, after, (node.name,))
    return frozenset(found)


def _links(nodes: Iterable[NodeProto]) -> tuple[dict[str, NodeProto], dict[str, NodeProto]]:
    """(maker of each value, its reader if there is one only)."""
    makers: dict[str, NodeProto] = {}
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        if node.op_type != "Constant":
            makers.update(dict.fromkeys(node.output, node))
        for name in set(node.input):
            readers.setdefault(name, []).append(node)
    return makers, {name: users[0] for name, users in readers.items() if len(users) == 1}


def _rounds(node: NodeProto) -> bool:
    if node.domain or node.op_type not in (*_ROUNDED, "Cast"):
        return False
    return node.op_type != "Cast" or any(a.name == "to" and a.i in _INTEGERS for a in node.attribute)


def _reach(node: NodeProto, links: dict[str, NodeProto], *, up: bool) -> list[str]:
    """The names of the nodes up to and with the next scaling, or none if something else comes first."""
    path: list[str] = []
    while True:
        names = node.input if up else node.output
        node = next((links[name] for name in names if name in links), NodeProto())
        path.append(node.name)
        if node.domain or node.op_type not in (*_BETWEEN, *_ROUNDED, *_SCALED):
            return []
        if node.op_type in _SCALED:
            return path


def written(node: Node) -> Expr | None:
    """The node as one operator of Relax, where TVM's converter would fold it or write a cast out."""
    if node.op == "Cast":
        return relax.op.astype(node.require(0), storage_dtype(node.whole("to", 0)))
    operator = _ARITHMETIC.get(node.op)
    return operator(node.require(0), node.require(1)) if operator and len(node.inputs) == 2 else None


_ARITHMETIC = {
    "Add": relax.op.add,
    "Div": relax.op.divide,
    "Max": relax.op.maximum,
    "Min": relax.op.minimum,
    "Mul": relax.op.multiply,
    "Sub": relax.op.subtract,
}
