"""Sums, means and extremes over dimensions."""

from __future__ import annotations

from collections.abc import Callable

from tvm_qat.importers.torch.aten.types import cast, is_float
from tvm_qat.importers.torch.node import Node, axis_of
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, relax


def _axes(node: Node) -> list[int]:
    """The dimensions named; all of them if none is."""
    rank = len(node.shape("self"))
    if not node.has("dim") or node.args["dim"] == []:
        return list(range(rank))
    return [axis_of(axis, rank) for axis in node.wholes("dim")]


def mean(write: Writer, node: Node) -> Expr:
    return relax.op.mean(_typed(write, node), _axes(node), node.flag("keepdim"))


def sum_(write: Writer, node: Node) -> Expr:
    """Of integers in int64, as torch does."""
    data = _typed(write, node)
    if not node.has("dtype") and not is_float(node.dtype("self")):
        data = cast(write, data, "int64")
    return relax.op.sum(data, _axes(node), node.flag("keepdim"))


def _typed(write: Writer, node: Node) -> Expr:
    data = node.tensor("self")
    return cast(write, data, node.args["dtype"]) if node.has("dtype") else data


def extreme(function: Callable[..., Expr]) -> Callable[[Writer, Node], Expr]:
    """amax, amin: the values alone."""
    return lambda _write, node: function(node.tensor("self"), _axes(node), node.flag("keepdim"))


def extreme_and_place(function: Callable[..., Expr]) -> Callable[[Writer, Node], object]:
    """max and min: over everything a tensor, over one dimension (values, indices)."""

    def convert(_write: Writer, node: Node) -> object:
        values = function(node.tensor("self"), _axes(node), node.flag("keepdim"))
        return [values, None] if node.has("dim") else values

    return convert


def arg_extreme(function: Callable[..., Expr]) -> Callable[[Writer, Node], Expr]:
    """argmax, argmin: int64 indices, of the flattened tensor if no dimension is named."""

    def convert(write: Writer, node: Node) -> Expr:
        data = node.tensor("self")
        if not node.has("dim"):
            flat = write(relax.op.reshape(data, (-1,)))
            return function(flat, 0, False)
        return function(data, node.axis("dim", len(node.shape("self"))), node.flag("keepdim"))

    return convert
