"""Elementwise operators of two quantized tensors, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm_qat.ir import Expr, attrs_of, dtype_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import litert
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.operands import Operands
from tvm_qat.kernels.terms import (
    Term,
    TermBuilder,
    centred,
    constant,
    greatest_real,
    rank_of,
    requantized,
    require_params,
    saturated,
    scaled,
)
from tvm_qat.qnn.arithmetic import Array, multiplier, spread
from tvm_qat.qnn.pointwise import product_factor, quotient_factor
from tvm_qat.qparams import QParams

_tir = tvm.tirx


def _in_steps(call: Expr, i: int, x: Term, source: QParams, target: QParams, operands: Operands) -> Term:
    """The real value of operand i in steps of the target."""
    ndim = rank_of(call.args[i])
    whole = _centred_operand(call, i, x, source, operands)
    product = scaled(whole, spread(multiplier(source, target), source.axis, ndim), operands)
    return lambda site: ex.fence(product(site))


def _centred_operand(call: Expr, i: int, x: Term, source: QParams, operands: Operands) -> Term:
    data = call.args[i]
    return centred(x, dtype_of(data), spread(source.zero_point, source.axis, rank_of(data)), operands)


def _sum(combine: Callable[[PrimExpr, PrimExpr], PrimExpr]) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
        x = _in_steps(call, 0, inputs[0], lhs, output, operands)
        y = _in_steps(call, 1, inputs[1], rhs, output, operands)
        greatest = _greatest_sum(call, (lhs, rhs), output, operands)
        real = lambda s: combine(x(s), y(s))  # noqa: E731
        rounding = attrs_of(call)["rounding"]
        return saturated(real, output.zero_point, output, operands, rounding, greatest)

    return build


def _greatest_sum(call: Expr, sides: Sequence[QParams], output: QParams, operands: Operands) -> float | None:
    """Bound of the sum of both real values; sums of products as operands have none here."""
    total = 0.0
    for data, side in zip(call.args[:2], sides, strict=True):
        dtype = dtype_of(data)
        factor = multiplier(side, output)
        bound = None if dtype == "int32" else greatest_real(dtype, side.zero_point, factor, operands)
        if bound is None:
            return None
        total += bound
    return total


def _product(
    combine: Callable[[PrimExpr, PrimExpr], PrimExpr],
    factor_of: Callable[[QParams, QParams, QParams, int], Array],
) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
        x = _centred_operand(call, 0, inputs[0], lhs, operands)
        y = _centred_operand(call, 1, inputs[1], rhs, operands)
        ndim = max(rank_of(call.args[0]), rank_of(call.args[1]))
        factor = constant(factor_of(lhs, rhs, output, ndim), operands)
        return saturated(
            lambda s: combine(ex.cast(x(s), "float32"), ex.cast(y(s), "float32")) * factor(s),
            output.zero_point, output, operands,
        )  # fmt: skip

    return build


def _extreme(combine: Callable[[PrimExpr, PrimExpr], PrimExpr]) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
        x, y = (
            requantized(
                term, dtype_of(data), rank_of(data), source, output, operands, attrs_of(call)["rounding"]
            )
            for term, data, source in zip(inputs, call.args[:2], (lhs, rhs), strict=True)
        )
        return lambda s: combine(x(s), y(s))

    return build


def _either(build: TermBuilder, exact: TermBuilder) -> TermBuilder:
    """exact : the same as LiteRT computes it."""

    def chosen(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        rounding = attrs_of(call)["rounding"]
        return (exact if rounding == "tflite" else build)(call, inputs, operands)

    return chosen


BINARY: dict[str, TermBuilder] = {
    "qnn.add": _either(_sum(lambda x, y: x + y), litert.sum_of_two(lambda x, y: x + y)),
    "qnn.subtract": _either(_sum(lambda x, y: x - y), litert.sum_of_two(lambda x, y: x - y)),
    "qnn.multiply": _either(_product(lambda x, y: x * y, product_factor), litert.product_of_two),
    "qnn.divide": _product(lambda x, y: x / y, quotient_factor),
    "qnn.minimum": _extreme(_tir.min),
    "qnn.maximum": _extreme(_tir.max),
}
