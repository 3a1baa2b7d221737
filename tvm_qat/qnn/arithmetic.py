"""The arithmetic of quantized tensors in NumPy: what every kernel must repeat bit for bit.

All real arithmetic is float32, one operation at a time, each rounded to nearest even; nothing
is fused. A kernel that multiplies and then adds must keep the compiler from contracting the two
(see `kernels.strict_float`). Values are clamped *before* they are rounded: the bounds are whole
numbers, so the result is the same, and the conversion to integers cannot overflow.
A NaN becomes the least value of the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat import fixed_point
from tvm_qat.fixed_point import ROUNDINGS
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]
F32 = np.float32
LARGEST_INT32_FLOAT = F32(2147483520.0)
"""The greatest float32 below 2^31: int32 results saturate here, not at 2^31 - 1."""


def spread(values: Array, axis: int | None, ndim: int) -> Array:
    """Per-channel values of shape (n,) shaped to broadcast along `axis` of an ndim-tensor."""
    if values.ndim == 0 or axis is None:
        return values
    shape = [1] * ndim
    shape[axis] = values.size
    return values.reshape(shape)


def saturate(real: Array, zero_point: Array, params: QParams, rounding: str = "half_even") -> Array:
    """round(real) + zero_point, clamped to [qmin, qmax], stored as params.dtype.

    `real` is float32 in steps of the output; `zero_point` broadcasts against it.
    """
    low, high = clamp_bounds(zero_point, params)
    with np.errstate(invalid="ignore"):
        clamped = np.where(real > low, real, low)
        clamped = np.where(clamped < high, clamped, high)
    whole = ROUNDINGS[rounding](clamped.astype(F32)).astype(np.int64)
    return np.asarray(whole + zero_point).astype(params.dtype)


def clamp_bounds(zero_point: Array, params: QParams) -> tuple[Array, Array]:
    """The least and greatest float32 in [qmin - zero_point, qmax - zero_point], within int32.

    They differ from the range itself only where float32 skips integers, beyond 2^24.
    """
    qmin, qmax = params.range
    wide = zero_point.astype(np.int64)
    low, high = np.asarray(qmin - wide, F32), np.asarray(qmax - wide, F32)
    low = np.where(low.astype(np.int64) < qmin - wide, np.nextafter(low, F32(np.inf)), low)
    high = np.where(high.astype(np.int64) > qmax - wide, np.nextafter(high, -F32(np.inf)), high)
    return np.maximum(low, -LARGEST_INT32_FLOAT), np.minimum(high, LARGEST_INT32_FLOAT)


def quantize(x: Array, params: QParams, formula: str = "half_even") -> Array:
    """float32 -> integers, by one of QUANTIZE_FORMULAS; scale and zero point along params.axis."""
    scale = spread(params.scale.astype(F32), params.axis, x.ndim)
    zero_point = spread(params.zero_point, params.axis, x.ndim)
    x = x.astype(F32)
    with np.errstate(over="ignore", invalid="ignore"):
        if formula in ROUNDINGS:
            return saturate((x / scale).astype(F32), zero_point, params, formula)
        if formula == "reciprocal_zero_point_inside":
            shifted = (x * (F32(1) / scale)).astype(F32) + zero_point.astype(F32)
            return saturate(shifted.astype(F32), np.zeros_like(zero_point), params)
        if formula == "reciprocal_fused":
            shifted = multiply_add(x, np.asarray(F32(1) / scale, F32), zero_point.astype(F32))
            return saturate(shifted, np.zeros_like(zero_point), params)
        if formula.startswith(RECIPROCAL):
            steps = (x * (F32(1) / scale)).astype(F32)
            return saturate(steps, zero_point, params, formula.removeprefix(RECIPROCAL))
        if formula.startswith(INSIDE):
            shifted = (x / scale).astype(F32) + zero_point.astype(F32)
            return saturate(
                shifted.astype(F32), np.zeros_like(zero_point), params, formula.removeprefix(INSIDE)
            )
        return _quantize_nudged(x, scale, zero_point, params, formula)


INSIDE = "zero_point_inside_"
RECIPROCAL = "reciprocal_"

QUANTIZE_FORMULAS = (
    *ROUNDINGS,
    *(f"{INSIDE}{rounding}" for rounding in ROUNDINGS),
    *(f"{RECIPROCAL}{rounding}" for rounding in ROUNDINGS),
    "reciprocal_zero_point_inside",
    "reciprocal_fused",
    "nudged_range",
    "nudged_divided",
    "nudged_inverse",
)
"""How `qnn.quantize` divides and rounds: the profile of the producer.

- a name of ROUNDINGS: round(x / scale) + zero_point. ONNX and AIMET: half_even.
- zero_point_inside_ and a name of ROUNDINGS: round(x / scale + zero_point). QONNX.
- reciprocal_ and a name of ROUNDINGS: round(x * (1 / scale)) + zero_point. reciprocal_half_even
  is torch's: fake_quantize_per_tensor_affine and, with integer zero points, _per_channel_affine;
  quantized_decomposed.quantize_per_*; LSQ.
- reciprocal_zero_point_inside: round(x * (1 / scale) + zero_point), half to even too.
  torch.quantize_per_channel.
- reciprocal_fused: the same with the product and the sum rounded once, together.
  torch.quantize_per_tensor (fbgemm's QuantizeAvx2, `_mm256_fmadd_ps`), so for quantized:: operators.
- nudged_range: floor((clamp(x) - nudged_min) * (1 / scale) + 0.5) + qmin.
- nudged_divided: floor((clamp(x) - nudged_min) / scale - steps + 0.5) + zero_point, where `steps`
  are those from qmin to zero_point. FakeQuantWithMinMaxVars of TensorFlow 2.21 on a CPU.
- nudged_inverse: the same, multiplied by levels / (max - min), rounded once, instead of divided.
  FakeQuantWithMinMaxArgs and FakeQuantWithMinMaxVarsPerChannel.
"""

NUDGED_FORMULAS = ("nudged_range", "nudged_divided", "nudged_inverse")
"""Those that count steps from the lower end of the range."""


def multiply_add(x: Array, y: Array, z: Array) -> Array:
    """x * y + z of float32, rounded once: what a fused multiply-add computes.

    The product of two float32 is exact in float64. Their sum with z is rounded to odd there (the
    error of the addition, exact by Knuth's TwoSum, says to which side), so that the second
    rounding, to float32, sees on which side of a tie the sum lies (Boldo and Melquiond, 2008).
    """
    product, addend = x.astype(np.float64) * y.astype(np.float64), z.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.asarray(product + addend)
        back = total - product
        error = (product - (total - back)) + (addend - back)
        bits = total.view(np.int64)
        move = np.isfinite(total) & (error != 0) & (bits & 1 == 0)
        odd = np.where(move, bits + np.where((error > 0) == (total > 0), 1, -1), bits)
        return np.asarray(odd.view(np.float64), F32)


def inverse_scale(params: QParams, formula: str, ndim: int) -> Array:
    """What a nudged formula multiplies by: 1 / scale of the rounded scale, or rounded only then.

    `nudged_range` of qparams keeps the scale in float64 exact enough for the latter: a quotient
    of float32 numbers with at most 16 bits on one side is never so close to a tie.
    """
    scale = spread(params.scale, params.axis, ndim)
    return np.asarray(1 / scale, F32) if formula == "nudged_inverse" else F32(1) / scale.astype(F32)


def _quantize_nudged(x: Array, scale: Array, zero_point: Array, params: QParams, formula: str) -> Array:
    """TensorFlow's FakeQuant: clamp to the nudged range, count steps from its lower end."""
    assert formula in NUDGED_FORMULAS, formula
    qmin, qmax = params.range
    low = ((qmin - zero_point).astype(F32) * scale).astype(F32)
    high = ((qmax - zero_point).astype(F32) * scale).astype(F32)
    clamped = np.where(x > low, x, low)
    clamped = np.where(clamped < high, clamped, high)
    shifted = (clamped - low).astype(F32)
    if formula == "nudged_divided":
        steps = (shifted / scale).astype(F32)
    else:
        steps = (shifted * inverse_scale(params, formula, x.ndim)).astype(F32)
    origin = np.asarray(qmin)
    if formula != "nudged_range":
        steps, origin = (steps - (zero_point - qmin).astype(F32)).astype(F32), zero_point
    whole = np.floor((steps + F32(0.5)).astype(F32)).astype(np.int64)
    return np.asarray(np.clip(whole + origin, qmin, qmax).astype(params.dtype))


def dequantize(q: Array, params: QParams) -> Array:
    """integers -> float32: float32(q - zero_point) * scale."""
    scale = spread(params.scale.astype(F32), params.axis, q.ndim)
    return (centred(q, params).astype(F32) * scale).astype(F32)


def centred(q: Array, params: QParams) -> Array:
    """q - zero_point as int32 (int64 if q is)."""
    zero_point = spread(params.zero_point, params.axis, q.ndim)
    wide = np.int64 if q.dtype.itemsize > 4 else np.int32
    return np.asarray(q.astype(wide) - zero_point.astype(wide))


def multiplier(source: QParams, target: QParams) -> Array:
    """float32(source.scale) / float32(target.scale), rounded once: what onnxruntime uses."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return np.asarray(source.scale.astype(F32) / target.scale.astype(F32), F32)


def requantize(q: Array, source: QParams, target: QParams, rounding: str = "half_even") -> Array:
    """From one grid to another; `rounding` is one of fixed_point.SUM_ROUNDINGS."""
    zero_point = spread(target.zero_point, target.axis, q.ndim)
    axis = source.axis if source.axis is not None else target.axis
    values = centred(q, source)
    if rounding in ROUNDINGS:
        factor = spread(multiplier(source, target), axis, q.ndim)
        with np.errstate(over="ignore", invalid="ignore"):
            real = (values.astype(F32) * factor).astype(F32)
        return saturate(real, zero_point, target, rounding)
    fixed, shift = fixed_point.quantize_multiplier(source.scale / target.scale)
    step = fixed_point.MULTIPLICATIONS[rounding]
    whole = step(values, spread(fixed, axis, q.ndim), spread(shift, axis, q.ndim)).astype(np.int64)
    return np.clip(whole + zero_point, *target.range).astype(target.dtype)
