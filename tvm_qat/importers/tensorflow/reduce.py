"""Reductions over axes that are known."""

from __future__ import annotations

from collections.abc import Callable

from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import Expr, relax


def over_axes(function: Callable[..., Expr]) -> Callable[[Node], Expr]:
    def converter(node: Node) -> Expr:
        rank = len(node.shape(0))
        axes = [node.axis(axis, rank) for axis in node.numbers(1, "axes")]
        return function(node.tensor(0), axes, node.flag("keep_dims")) if axes else node.tensor(0)

    return converter


def extreme(function: Callable[..., Expr]) -> Callable[[Node], Expr]:
    """ArgMax and ArgMin: the first of equals."""

    def converter(node: Node) -> Expr:
        axis = node.axis(node.numbers(1, "an axis")[0], len(node.shape(0)))
        wanted = node.type("output_type") if "output_type" in node.attrs else "int64"
        found = function(node.tensor(0), axis, False)
        return found if wanted == "int64" else relax.op.astype(node.write(found), wanted)

    return converter
