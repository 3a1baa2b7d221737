"""LiteRT's reference arithmetic as terms: `qnn.litert`, repeated.

Softmax's powers come from a table, its reciprocal from three steps of Newton's division per row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from tvm_qat.ir import Expr, dtype_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.terms import Term, TermBuilder, centred, clamped, constant, fixed_double, require_params
from tvm_qat.qnn import litert
from tvm_qat.qnn.arithmetic import Array
from tvm_qat.qnn.litert import Multiplier
from tvm_qat.qparams import QParams

_tir = tvm.tirx


def times(x: Term, by: Multiplier, operands: Operands) -> Term:
    """An int32 term times a fixed-point number, rounded twice."""
    return fixed_double(x, by.fixed, by.shift, operands)


def sum_of_two(combine: Callable[[PrimExpr, PrimExpr], PrimExpr]) -> TermBuilder:
    """ADD and SUB."""

    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
        form = litert.sum_form(lhs, rhs, output)
        x, y = (
            times(_shifted(_centred(call, i, inputs[i], grid, operands), form.left), by, operands)
            for i, (grid, by) in enumerate(((lhs, form.lhs), (rhs, form.rhs)))
        )
        total = times(lambda s: combine(x(s), y(s)), form.output, operands)
        return clamped(total, output.zero_point, output, operands)

    return build


def _centred(call: Expr, i: int, x: Term, source: QParams, operands: Operands) -> Term:
    return centred(x, dtype_of(call.args[i]), source.zero_point, operands)


def _shifted(x: Term, left: int) -> Term:
    return lambda site: _tir.shift_left(x(site), ex.int32(left))


def product_of_two(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    """MUL."""
    lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
    x, y = (_centred(call, i, inputs[i], grid, operands) for i, grid in enumerate((lhs, rhs)))
    by = litert.product_multiplier(lhs, rhs, output)
    whole = times(lambda s: x(s) * y(s), by, operands)
    return clamped(whole, output.zero_point, output, operands)


def mean(source: QParams, output: QParams, count: int, operands: Operands) -> Term:
    """MEAN of the kernel's sum."""
    total = times(
        lambda s: ex.cast(s.anchor, "int32"), litert.mean_multiplier(source, output, count), operands
    )
    return clamped(total, output.zero_point, output, operands)


def average(count: Array, output: QParams, operands: Operands) -> Term:
    """AVERAGE_POOL of the kernel's sum; `count` broadcasts against the output.

    floor(n / d) is (n * ceil(2^40 / d)) >> 40 wherever n * d < 2^40, and no window is as large as that.
    """
    inverse = constant(-(-(np.int64(1) << RECIPROCAL_BITS) // np.maximum(count, 1)), operands)
    half = constant(count // 2, operands)
    low, high = (constant(np.asarray(bound, np.int64), operands) for bound in output.range)

    def term(site: Site) -> PrimExpr:
        total = ex.cast(site.anchor, "int64")
        size = _tir.max(total, _tir.const(0, "int64") - total) + half(site)
        quotient = _tir.shift_right(size * inverse(site), _tir.const(RECIPROCAL_BITS, "int64"))
        signed = _tir.Select(total > _tir.const(0, "int64"), quotient, _tir.const(0, "int64") - quotient)
        return ex.cast(_tir.min(_tir.max(signed, low(site)), high(site)), output.dtype)

    return term


RECIPROCAL_BITS = 40


def reciprocal_of_sum(total: PrimExpr) -> tuple[PrimExpr, PrimExpr]:
    """(reciprocal, right shift of a power times it) of softmax's sum, both int64.

    The sum's binary digits are read from its float64 form, which is exact.
    """
    exact = _tir.reinterpret("int64", ex.cast(total, "float64"))
    digits = _tir.shift_right(exact, _i64(52)) - _i64(1022)
    scaled = _tir.shift_left(ex.cast(total, "int64"), _i64(32) - digits) - _i64(1 << 31)
    return scaled, digits + _i64(23 + litert.SUM_BITS - 32)


def newton_start(half: PrimExpr) -> PrimExpr:
    return _i64(1515870810) + doubling_product(half, _i64(-1010580540))


def newton_step(x: PrimExpr, half: PrimExpr) -> PrimExpr:
    rest = _i64(1 << 29) - doubling_product(half, x)
    return x + saturated_left(doubling_product(x, rest), 2)


def half_of_sum(a: PrimExpr) -> PrimExpr:
    """(a + 2^31 - 1) / 2, rounded up."""
    return _tir.shift_right(a + _i64(1 << 31), _i64(1))


def doubling_product(a: PrimExpr, b: PrimExpr) -> PrimExpr:
    return _tir.shift_right(a * b + _i64(1 << 30), _i64(31))


def saturated_left(a: PrimExpr, by: int) -> PrimExpr:
    moved = _tir.shift_left(a, _i64(by))
    return _tir.min(_tir.max(moved, _i64(-(1 << 31))), _i64((1 << 31) - 1))


def share(power: PrimExpr, scale: PrimExpr, exponent: PrimExpr) -> PrimExpr:
    """A power times the reciprocal, divided by 2^exponent: half away from zero, of positive values. int32."""
    product = doubling_product(ex.cast(power, "int64"), scale)
    half = _tir.shift_right(_tir.shift_left(_i64(1), exponent), _i64(1))
    return ex.cast(_tir.shift_right(product + half, exponent), "int32")


def _i64(value: int) -> PrimExpr:
    return _tir.IntImm("int64", value)
