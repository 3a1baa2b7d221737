"""Arithmetic and comparisons of two operands, with broadcasting and promotion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.aten.types import cast, common_dtype, is_float, unified
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, relax


def binary(function: Callable[[Expr, Expr], Expr]) -> Callable[[Writer, Node], Expr]:
    """The converter of an operator on `self` and `other`."""
    return lambda write, node: function(*unified(write, node.args["self"], node.args["other"]))


def add(write: Writer, node: Node) -> Expr:
    """self + alpha * other."""
    return relax.op.add(*unified(write, node.args["self"], _scaled(write, node)))


def sub(write: Writer, node: Node) -> Expr:
    return relax.op.subtract(*unified(write, node.args["self"], _scaled(write, node)))


def rsub(write: Writer, node: Node) -> Expr:
    """other - alpha * self."""
    if node.real("alpha", 1) != 1:
        raise UnsupportedError("alpha other than 1 is not supported")
    return relax.op.subtract(*unified(write, node.args["other"], node.args["self"]))


def _scaled(write: Writer, node: Node) -> Any:
    other, alpha = node.args["other"], node.args.get("alpha", 1)
    if alpha == 1:
        return other
    if isinstance(other, int | float):
        return other * alpha
    return write(relax.op.multiply(*unified(write, other, alpha)))


def div(write: Writer, node: Node) -> Expr:
    """True division of integers gives floats; rounding_mode is None, "floor" or "trunc"."""
    left, right = node.args["self"], node.args["other"]
    mode = node.args.get("rounding_mode")
    dtype = common_dtype(left, right)
    if mode == "floor":
        return relax.op.floor_divide(*unified(write, left, right))
    if mode is not None:
        raise UnsupportedError(f"rounding mode {mode!r} is not supported")
    if not is_float(dtype):
        left = cast(write, left, "float32") if not isinstance(left, int | float) else float(left)
        right = cast(write, right, "float32") if not isinstance(right, int | float) else float(right)
    return relax.op.divide(*unified(write, left, right))


def power(write: Writer, node: Node) -> Expr:
    """Squares are products."""
    base, exponent = node.args["self"], node.args["exponent"]
    if isinstance(exponent, int | float) and exponent == 2:
        return relax.op.multiply(base, base)
    if isinstance(exponent, int | float) and exponent == 0.5:
        return relax.op.sqrt(base)
    return relax.op.power(*unified(write, base, exponent))


def where(write: Writer, node: Node) -> Expr:
    values = unified(write, node.args["self"], node.args["other"])
    return relax.op.where(node.tensor("condition"), *values)


def masked_fill(write: Writer, node: Node) -> Expr:
    data = node.tensor("self")
    value, data = unified(write, node.args["value"], data)
    return relax.op.where(node.tensor("mask"), value, data)
