"""The formulas of `qnn.arithmetic` as terms: functions from a place in the output to its value.

The parameters of a formula are computed in NumPy when the term is made, exactly as the reference
computes them, and become operands of the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tvm_qat import fixed_point
from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    array_of,
    dtype_of,
    is_const,
    op_name,
    relax,
    shape_of,
    source_of,
    tvm,
)
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.qnn.arithmetic import (
    F32,
    INSIDE,
    NUDGED_FORMULAS,
    RECIPROCAL,
    Array,
    clamp_bounds,
    inverse_scale,
    multiplier,
    spread,
)
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import STORAGE_RANGE, QParams

Term: TypeAlias = Callable[[Site], PrimExpr]
TermBuilder: TypeAlias = Callable[[Expr, Sequence[Term], Operands], Term]
"""(call, terms of its data operands, operands of the kernel) -> term of its result."""

_tir = tvm.tirx


@dataclass(frozen=True)
class Saturated:
    """A term that ends on a narrow integer, and its value before it is narrowed.

    Where the real value is known to stay below 2^31, rounding first and clamping the integers
    gives what clamping first and rounding gives, in fewer instructions.

    whole : int32 without the zero point. output : the parameters, of one zero point. Which of them
    the code needs at all is decided by their values; the values themselves are operands, read by
    `shift` (None where the zero point is 0), `low` and `high` (without the zero point), so that
    layers that differ only there share a PrimFunc.
    """

    whole: Term
    output: QParams
    shift: Term | None
    low: Term
    high: Term

    @property
    def dtype(self) -> str:
        return self.output.dtype

    @property
    def zero_point(self) -> int:
        return int(self.output.zero_point.reshape(()))

    def __call__(self, site: Site) -> PrimExpr:
        inside = self.centred(site)
        return ex.cast(inside + self.shift(site) if self.shift else inside, self.dtype)

    def centred(self, site: Site) -> PrimExpr:
        """int32 minus its own zero point, clamped: an operator that follows need not undo the shift."""
        return _tir.min(_tir.max(self.whole(site), self.low(site)), self.high(site))

    @property
    def fits_bytes(self) -> bool:
        return self.dtype in ("int8", "uint8")

    def clamped(self, site: Site, packed: PrimExpr, lanes: int) -> PrimExpr:
        """A vector saturated to the dtype, clamped to the range in use where that is narrower."""
        least, most = STORAGE_RANGE[self.dtype]
        qmin, qmax = self.output.range
        if qmin > least:
            packed = _tir.max(packed, self._bound(self.low(site), site, lanes))
        if qmax < most:
            packed = _tir.min(packed, self._bound(self.high(site), site, lanes))
        return packed

    def _bound(self, centred: PrimExpr, site: Site, lanes: int) -> PrimExpr:
        bound = centred + self.shift(site) if self.shift else centred
        return _tir.Broadcast(ex.cast(bound, self.dtype), lanes)


def rank_of(expr: Expr) -> int:
    shape = shape_of(expr)
    assert shape is not None
    return len(shape)


def require_params(call: Expr, role: str) -> QParams:
    params = params_of(call, role)
    if params is None:
        reason = f"{op_name(call)} needs {role} parameters known at compile time"
        raise UnsupportedError(located(reason, node=source_of(call)))
    return params


def constant(values: Array, operands: Operands) -> Term:
    parameter = operands.constant(np.asarray(values))
    return lambda site: site.parameter(parameter)


def run_time_parameter(value: Expr, operands: Operands, axis: int | None = None, ndim: int = 0) -> Term:
    """A scale or zero point, constant or computed by the graph: one, or one per channel of `axis`."""
    dtype = "int32" if dtype_of(value) != "float32" else "float32"
    shape = shape_of(value)
    per_channel = axis is not None and shape not in ((), (1,))
    if is_const(value):
        values = array_of(value).astype(dtype)
        return constant(spread(values, axis, ndim) if per_channel else values.reshape(()), operands)
    if per_channel and axis is not None:
        if axis < ndim - 1:
            value = BlockBuilder().normalize(relax.op.reshape(value, (-1, *[1] * (ndim - 1 - axis))))
        channels = operands.tensor(value)
        return lambda site: ex.cast(site.element(channels), dtype)
    if shape not in ((), (1,)):
        reason = f"a parameter computed at run time must be a scalar, not of shape {shape}"
        raise UnsupportedError(located(reason, node=source_of(value)))
    operand = operands.tensor(value)
    return lambda site: ex.cast(site.element(operand), dtype)


def centred(x: Term, dtype: str, zero_point: Array, operands: Operands) -> Term:
    """x - zero_point as int32."""
    if isinstance(x, Saturated) and np.all(zero_point == x.zero_point):
        return x.centred
    if not np.any(zero_point):
        return lambda site: ex.cast(x(site), "int32")
    subtract = ex.wrapping_subtract if dtype == "int32" else _plain_subtract
    shift = constant(zero_point.astype(np.int32), operands)
    return lambda site: subtract(ex.cast(x(site), "int32"), shift(site))


def _plain_subtract(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return x - y


def scaled(x: Term, factor: Array, operands: Operands) -> Term:
    """float32(x) * factor."""
    by = constant(np.asarray(factor, F32), operands)
    return lambda site: ex.cast(x(site), "float32") * by(site)


_SAFE = 2.0**30
"""Real values up to here can be rounded to int32 and moved by a 16-bit zero point."""


def saturated(
    real: Term, zero_point: Array, output: QParams, operands: Operands, rounding: str = "half_even",
    greatest: float | None = None,
) -> Term:  # fmt: skip
    """`qnn.arithmetic.saturate` of a float32 term; zero_point broadcasts against the output.

    greatest : bound of the term's absolute value, NaN excluded; None if there is none.
    """
    if rounding == "half_even" and _can_clamp_later(output, greatest):
        whole = lambda site: ex.nearest(real(site))  # noqa: E731
        return _saturated_later(whole, zero_point.astype(np.int32).reshape(()), output, operands)
    low, high = (constant(bound, operands) for bound in clamp_bounds(zero_point, output))
    shift = constant(zero_point.astype(np.int32), operands) if np.any(zero_point) else None
    dtype = output.dtype
    return lambda site: ex.saturate(
        real(site), low(site), high(site), shift(site) if shift else None, dtype, rounding
    )


def _can_clamp_later(output: QParams, greatest: float | None) -> bool:
    narrow = output.dtype != "int32" and output.zero_point.size == 1
    return narrow and greatest is not None and greatest < _SAFE


def _saturated_later(whole: Term, zero_point: Array, output: QParams, operands: Operands) -> Saturated:
    low, high = (constant(np.asarray(bound - zero_point, np.int32), operands) for bound in output.range)
    shift = constant(zero_point, operands) if zero_point else None
    return Saturated(whole, output.with_(zero_point=zero_point), shift, low, high)


def greatest_real(dtype: str, zero_point: Array, factor: Array, operands: Operands) -> float | None:
    """Bound of |float32(q - zero_point) * factor| over all q of `dtype`; sums are bounded by the kernel."""
    if dtype == "int32":
        reach = operands.accumulator_bound
    else:
        low, high = STORAGE_RANGE[dtype]
        reach = int(max(high - zero_point.min(), zero_point.max() - low))
    return None if reach is None else float(reach) * float(np.abs(factor).max())


def requantized(
    x: Term, dtype: str, ndim: int, source: QParams, target: QParams, operands: Operands,
    rounding: str = "half_even",
) -> Term:  # fmt: skip
    """`qnn.arithmetic.requantize` of a term of integers."""
    zero_point = spread(target.zero_point, target.axis, ndim)
    axis = source.axis if source.axis is not None else target.axis
    values = centred(x, dtype, spread(source.zero_point, source.axis, ndim), operands)
    if rounding in fixed_point.ROUNDINGS:
        factor = multiplier(source, target)
        real = scaled(values, spread(factor, axis, ndim), operands)
        greatest = greatest_real(dtype, source.zero_point, factor, operands)
        return saturated(real, zero_point, target, operands, rounding, greatest)
    fixed, shift = fixed_point.quantize_multiplier(source.scale / target.scale)
    step = _FIXED_POINT[rounding](values, spread(fixed, axis, ndim), spread(shift, axis, ndim), operands)
    greatest = greatest_real(dtype, source.zero_point, source.scale / target.scale, operands)
    if _can_clamp_later(target, greatest):
        whole = lambda site: ex.cast(step(site), "int32")  # noqa: E731
        return _saturated_later(whole, target.zero_point.reshape(()), target, operands)
    return clamped(step, zero_point, target, operands)


def fixed_double(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    """int32 values times fixed * 2^(shift - 31), rounded twice; both broadcast against the output."""
    by = constant(fixed.astype(np.int64), operands)
    left = constant(np.maximum(shift, 0).astype(np.int64), operands) if np.any(shift > 0) else None
    right = constant(np.maximum(-shift, 0).astype(np.int64), operands) if np.any(shift < 0) else None
    some_exact = bool(np.any(shift >= 0))
    return lambda s: ex.fixed_point_double(
        values(s), by(s), left(s) if left else None, right(s) if right else None, some_exact
    )


def _fixed_single(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    return _rounded_once(values, fixed, 31 - shift.astype(np.int64), operands)


def _fixed_wide(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    return _rounded_once(values, *fixed_point.reduced_multiplier(fixed, shift), operands)


def _fixed_away(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    return _rounded_once(values, fixed, 31 - shift.astype(np.int64), operands, away=True)


def _rounded_once(values: Term, fixed: Array, total: Array, operands: Operands, away: bool = False) -> Term:
    """(values * fixed) / 2^total, half up, or half away from zero."""
    by, right = constant(fixed, operands), constant(total, operands)
    half = constant(np.asarray(np.int64(1) << (total - 1)), operands)
    form = ex.fixed_point_away if away else ex.fixed_point_single
    return lambda s: form(values(s), by(s), right(s), half(s))


_FIXED_POINT = {
    "tflite": fixed_double,
    "tflite_single": _fixed_single,
    "tflite_wide": _fixed_wide,
    "single_away": _fixed_away,
}


def clamped(whole: Term, zero_point: Array, target: QParams, operands: Operands) -> Term:
    """clip(whole + zero_point, qmin, qmax), clamping before the addition so that it cannot overflow."""
    qmin, qmax = target.range
    wide = zero_point.astype(np.int64)
    least, greatest = -(2**31), 2**31 - 1
    low = constant(np.asarray(np.clip(qmin - wide, least, greatest), np.int32), operands)
    high = constant(np.asarray(np.clip(qmax - wide, least, greatest), np.int32), operands)
    shift = constant(zero_point.astype(np.int32), operands)

    def term(site: Site) -> PrimExpr:
        value = whole(site)
        dtype = str(value.ty.dtype)
        inside = _tir.min(_tir.max(value, ex.cast(low(site), dtype)), ex.cast(high(site), dtype))
        return ex.cast(ex.cast(inside, "int32") + shift(site), target.dtype)

    return term


def quantized(x: Term, ndim: int, output: QParams, formula: str, operands: Operands) -> Term:
    """`qnn.arithmetic.quantize` of a float term."""
    scale = spread(output.scale.astype(F32), output.axis, ndim)
    zero_point = spread(output.zero_point, output.axis, ndim)
    if formula in NUDGED_FORMULAS:
        return _nudged(x, ndim, output, formula, operands)
    if formula == "reciprocal_zero_point_inside":
        steps, shift = scaled(x, F32(1) / scale, operands), constant(zero_point.astype(F32), operands)
        zero = np.zeros_like(zero_point)
        return saturated(lambda s: ex.fence(steps(s)) + shift(s), zero, output, operands)
    if formula == "reciprocal_fused":
        inverse, shift = constant(F32(1) / scale, operands), constant(zero_point.astype(F32), operands)
        zero = np.zeros_like(zero_point)
        return saturated(
            lambda s: ex.multiply_add(ex.cast(x(s), "float32"), inverse(s), shift(s)), zero, output, operands
        )
    if formula.startswith(RECIPROCAL):
        steps, rounding = scaled(x, F32(1) / scale, operands), formula.removeprefix(RECIPROCAL)
        return saturated(steps, zero_point, output, operands, rounding)
    step = constant(scale, operands)
    if formula.startswith(INSIDE):
        shift, zero = constant(zero_point.astype(F32), operands), np.zeros_like(zero_point)
        rounding = formula.removeprefix(INSIDE)
        return saturated(
            lambda s: ex.cast(x(s), "float32") / step(s) + shift(s), zero, output, operands, rounding
        )
    return saturated(lambda s: ex.cast(x(s), "float32") / step(s), zero_point, output, operands, formula)


def _nudged(x: Term, ndim: int, output: QParams, formula: str, operands: Operands) -> Term:
    scale = spread(output.scale.astype(F32), output.axis, ndim)
    zero_point = spread(output.zero_point, output.axis, ndim)
    qmin, qmax = output.range
    low = constant(((qmin - zero_point).astype(F32) * scale).astype(F32), operands)
    high = constant(((qmax - zero_point).astype(F32) * scale).astype(F32), operands)
    divided, from_zero = formula == "nudged_divided", formula != "nudged_range"
    factor = constant(scale if divided else inverse_scale(output, formula, ndim), operands)
    origin = constant(zero_point if from_zero else np.asarray(qmin, np.int32), operands)
    below = constant((zero_point - qmin).astype(F32), operands)

    def term(site: Site) -> PrimExpr:
        clamped = _tir.min(_tir.max(ex.cast(x(site), "float32"), low(site)), high(site))
        shifted = clamped - low(site)
        steps = shifted / factor(site) if divided else ex.fence(shifted * factor(site))
        steps = steps - below(site) if from_zero else steps
        whole = ex.cast(ex.floor(steps + ex.float32(0.5)), "int32") + origin(site)
        return ex.cast(_tir.min(_tir.max(whole, ex.int32(qmin)), ex.int32(qmax)), output.dtype)

    return term


def dequantized(x: Term, dtype: str, ndim: int, source: QParams, operands: Operands) -> Term:
    zero_point = spread(source.zero_point, source.axis, ndim)
    scale = spread(source.scale.astype(F32), source.axis, ndim)
    return scaled(centred(x, dtype, zero_point, operands), scale, operands)
