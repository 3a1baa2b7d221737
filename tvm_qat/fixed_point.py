"""Rounding and fixed-point arithmetic, once, in NumPy: the arithmetic every kernel repeats.

Sources of the formulas
-----------------------
- half-even on float32: ONNX QuantizeLinear.
- `quantize_multiplier`, `multiply_by_quantized_multiplier`: TensorFlow Lite's reference
  arithmetic (gemmlowp), published with the "Quantization and Training of Neural Networks for
  Efficient Integer-Arithmetic-Only Inference" paper.
- QONNX modes: the QONNX specification of `Quant.rounding_mode`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
Int = npt.NDArray[np.integer]


def _half_away(x: Float) -> Float:
    whole = np.trunc(x)
    return np.asarray(whole + np.sign(x) * (np.abs(x - whole) >= np.float32(0.5)), np.float32)


def _half_up(x: Float) -> Float:
    whole = np.floor(x)
    return np.asarray(whole + ((x - whole) >= np.float32(0.5)), np.float32)


def _half_down(x: Float) -> Float:
    whole = np.ceil(x)
    return np.asarray(whole - ((whole - x) >= np.float32(0.5)), np.float32)


def _half_toward_zero(x: Float) -> Float:
    whole = np.trunc(x)
    return np.asarray(whole + np.sign(x) * (np.abs(x - whole) > np.float32(0.5)), np.float32)


def _away_from_zero(x: Float) -> Float:
    return np.asarray(np.copysign(np.ceil(np.abs(x)), x), np.float32)


def _sign(x: Float) -> Float:
    return np.asarray(np.where(x >= 0, 1, -1), np.float32)


ROUNDINGS: dict[str, Callable[[Float], Float]] = {
    "half_even": np.rint,
    "half_away": _half_away,
    "half_up": _half_up,
    "half_down": _half_down,
    "floor": np.floor,
    "ceil": np.ceil,
    "toward_zero": np.trunc,
    "half_toward_zero": _half_toward_zero,
    "away_from_zero": _away_from_zero,
    "sign": _sign,
}
"""How a real number becomes a whole one. Each maps float32 to integral float32; `sign`, of bipolar
quantization, to 1 from zero on and to -1 below."""

NEAREST = ("half_even", "half_away", "half_up", "half_down", "half_toward_zero")
"""Those that differ at ties only."""

REQUANTIZE_ROUNDINGS = ("half_even", "tflite", "tflite_single", "single_away")
"""`half_even` multiplies in float32; the others are integer forms: LiteRT's two (`tflite_single` is
Relay's UPWARD too), and `single_away`, Relay's TONEAREST.

`tflite` asks for LiteRT's reference kernels throughout (`qnn.litert`), not in requantizes alone.
What a caller may choose. Where a producer rounds in another way of ROUNDINGS, its requantize does
too, after the multiplication in float32."""

SUM_ROUNDINGS = (*REQUANTIZE_ROUNDINGS, "tflite_wide", *(r for r in ROUNDINGS if r != "half_even"))
"""What a requantize may have. `tflite_wide` is what LiteRT does to sums of 16-bit data, under `tflite`."""


def quantize_multiplier(real: npt.NDArray[np.float64]) -> tuple[Int, Int]:
    """Split positive reals into (int32 multiplier in [2^30, 2^31), shift): real = m * 2^(shift-31).

    Rounds the significand half away from zero, as std::round does. Shape is kept. Shifts lie in
    [-31, 30]: smaller reals become zero, greater ones the greatest multiplier, as in LiteRT.
    """
    significand, exponent = np.frexp(np.asarray(real, np.float64))
    fixed = np.floor(significand * (1 << 31) + 0.5).astype(np.int64)
    overflow = fixed == 1 << 31
    fixed = np.where(overflow, fixed >> 1, fixed)
    exponent = exponent + overflow
    tiny, huge = exponent < -31, exponent > 30
    fixed = np.where(tiny, 0, np.where(huge, (1 << 31) - 1, fixed))
    return fixed.astype(np.int32), np.where(tiny, 0, np.minimum(exponent, 30)).astype(np.int32)


def saturating_rounding_doubling_high_mul(a: Int, b: Int) -> Int:
    """ab / 2^31, rounded half up; int32. Only a = b = -2^31 exceeds int32: it saturates.

    gemmlowp adds 2^30 or 1 - 2^30 by the sign of ab and divides towards zero, so a positive tie
    goes away from zero and a negative one towards it.
    """
    product = a.astype(np.int64) * b.astype(np.int64)
    nudge = np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    total = product + nudge
    quotient = np.where(total >= 0, total >> 31, -((-total) >> 31))
    return np.asarray(np.minimum(quotient, (1 << 31) - 1).astype(np.int32))


def rounding_divide_by_power_of_two(x: Int, exponent: Int) -> Int:
    """x / 2^exponent, rounded half away from zero. x: int32, 0 <= exponent <= 31."""
    wide = x.astype(np.int64)
    mask = (np.int64(1) << exponent.astype(np.int64)) - 1
    remainder = wide & mask
    threshold = (mask >> 1) + (wide < 0)
    quotient = (wide >> exponent.astype(np.int64)) + (remainder > threshold)
    return np.asarray(quotient.astype(np.int32))


def multiply_by_quantized_multiplier(x: Int, multiplier: Int, shift: Int) -> Int:
    """LiteRT's two-step requantization of int32 `x`: both steps round (profile `tflite`).

    A left shift wraps in int32, as the reference code's does.
    """
    left = np.maximum(shift, 0).astype(np.int64)
    right = np.maximum(-shift, 0)
    shifted = (x.astype(np.int64) << left).astype(np.int32)
    return rounding_divide_by_power_of_two(saturating_rounding_doubling_high_mul(shifted, multiplier), right)


def multiply_by_quantized_multiplier_single(x: Int, multiplier: Int, shift: Int) -> Int:
    """The same with one rounding, half up (LiteRT built with TFLITE_SINGLE_ROUNDING)."""
    total_shift = 31 - shift.astype(np.int64)
    product = x.astype(np.int64) * multiplier.astype(np.int64)
    rounded = (product + (np.int64(1) << (total_shift - 1))) >> total_shift
    return np.asarray(np.clip(rounded, -(1 << 31), (1 << 31) - 1).astype(np.int32))


def multiply_by_quantized_multiplier_away(x: Int, multiplier: Int, shift: Int) -> Int:
    """One rounding, half away from zero: Relay's requantize with rounding TONEAREST."""
    total_shift = 31 - shift.astype(np.int64)
    product = x.astype(np.int64) * multiplier.astype(np.int64)
    rounded = (product + (np.int64(1) << (total_shift - 1)) - (x < 0)) >> total_shift
    return np.asarray(np.clip(rounded, -(1 << 31), (1 << 31) - 1).astype(np.int32))


def reduced_multiplier(multiplier: Int, shift: Int) -> tuple[Int, Int]:
    """(15-bit multiplier, right shift), int64, of LiteRT's requantization of 64-bit sums."""
    wide = multiplier.astype(np.int64)
    reduced = np.where(wide < 0x7FFF0000, (wide + (1 << 15)) >> 16, 0x7FFF)
    return reduced, 15 - shift.astype(np.int64)


def multiply_by_reduced_multiplier(x: Int, multiplier: Int, shift: Int) -> Int:
    """LiteRT's requantization of 64-bit sums, |x| < 2^47: one rounding, half up (profile `tflite_wide`)."""
    reduced, right = reduced_multiplier(multiplier, shift)
    rounded = (x.astype(np.int64) * reduced + (np.int64(1) << (right - 1))) >> right
    return np.asarray(np.clip(rounded, -(1 << 31), (1 << 31) - 1).astype(np.int32))


MULTIPLICATIONS: dict[str, Callable[[Int, Int, Int], Int]] = {
    "tflite": multiply_by_quantized_multiplier,
    "tflite_single": multiply_by_quantized_multiplier_single,
    "single_away": multiply_by_quantized_multiplier_away,
    "tflite_wide": multiply_by_reduced_multiplier,
}
"""(x, multiplier, shift) -> x * multiplier * 2^(shift - 31), by the name of the rounding."""


def bits_for(count: int) -> int:
    """Least b with 2^b >= count."""
    return max(0, math.ceil(math.log2(count))) if count > 1 else 0
