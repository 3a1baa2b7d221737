"""LiteRT's reference arithmetic in NumPy: profile `tflite` of the operators that are not sums.

Integers throughout, except where LiteRT itself computes in float32 (tables of 8-bit functions,
softmax of 8 bits, uint8 concatenation). Source: tensorflow/lite/kernels of LiteRT 2.3, the kernels
that OpResolverType.BUILTIN_REF selects; every formula is tested against that interpreter.
Scales of TFLite files are float32, and where LiteRT multiplies or divides them in float32 or in
float64 decides the last bit of a multiplier, so it is followed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.fixed_point import multiply_by_quantized_multiplier, quantize_multiplier
from tvm_qat.qnn import gemmlowp
from tvm_qat.qnn.arithmetic import F32, Array, centred, requantize
from tvm_qat.qparams import STORAGE_RANGE, QParams


@dataclass(frozen=True)
class Multiplier:
    """A positive real as LiteRT holds it: fixed * 2^(shift - 31), both int32 scalars."""

    fixed: Array
    shift: Array

    def of(self, x: Array) -> Array:
        """x (int32) times the real number, rounded twice."""
        return multiply_by_quantized_multiplier(x, self.fixed, self.shift)


def multiplier_of(real: Any) -> Multiplier:
    return Multiplier(*(np.asarray(part) for part in quantize_multiplier(np.asarray(real, np.float64))))


def per_tensor(*grids: QParams) -> bool:
    return not any(grid.per_channel for grid in grids)


# ---------------------------------------------------------------- sums and products of two tensors


@dataclass(frozen=True)
class SumForm:
    """(x * 2^left * lhs + y * 2^left * rhs) * output, each product rounded."""

    left: int
    lhs: Multiplier
    rhs: Multiplier
    output: Multiplier


def sum_form(lhs: QParams, rhs: QParams, output: QParams) -> SumForm:
    """ADD and SUB: twice the greater scale is the common one; 15 guard bits for int16, 20 for 8 bits."""
    left = 15 if output.dtype == "int16" else 20
    x, y, o = (float(F32(grid.scale)) for grid in (lhs, rhs, output))
    twice = 2 * max(x, y)
    return SumForm(
        left, multiplier_of(x / twice), multiplier_of(y / twice), multiplier_of(twice / ((1 << left) * o))
    )


def suits_sum(lhs: QParams, rhs: QParams, output: QParams) -> bool:
    """Whether LiteRT has this sum: one dtype of 8 or 16 bits, and no multiplier above 1."""
    same = lhs.dtype == rhs.dtype == output.dtype
    if not (same and output.dtype in ("int8", "uint8", "int16") and per_tensor(lhs, rhs, output)):
        return False
    return int(sum_form(lhs, rhs, output).output.shift) <= 0


def add(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, sign: int = 1) -> Array:
    form = sum_form(lhs, rhs, output)
    left, right = (
        by.of((centred(q, grid).astype(np.int64) << form.left).astype(np.int32)).astype(np.int64)
        for q, grid, by in ((x, lhs, form.lhs), (y, rhs, form.rhs))
    )
    return clamped(form.output.of((left + sign * right).astype(np.int32)), output)


def subtract(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams) -> Array:
    return add(x, y, lhs, rhs, output, -1)


def product_multiplier(lhs: QParams, rhs: QParams, output: QParams) -> Multiplier:
    """MUL multiplies and divides the scales in float32."""
    return multiplier_of(F32(F32(F32(lhs.scale) * F32(rhs.scale)) / F32(output.scale)))


def suits_product(lhs: QParams, rhs: QParams, output: QParams) -> bool:
    same = lhs.dtype == rhs.dtype == output.dtype
    return same and output.dtype in ("int8", "uint8", "int16") and per_tensor(lhs, rhs, output)


def multiply(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams) -> Array:
    product = centred(x, lhs).astype(np.int64) * centred(y, rhs)
    return clamped(product_multiplier(lhs, rhs, output).of(product.astype(np.int32)), output)


def clamped(whole: Array, output: QParams) -> Array:
    """whole + zero_point in the range of the output."""
    moved = whole.astype(np.int64) + output.zero_point
    return np.asarray(np.clip(moved, *output.range).astype(output.dtype))


def minimum(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams) -> Array:
    """Of values on their own grids; LiteRT's MINIMUM has one grid, where nothing is rounded."""
    return np.minimum(requantize(x, lhs, output, "tflite"), requantize(y, rhs, output, "tflite"))


def maximum(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams) -> Array:
    return np.maximum(requantize(x, lhs, output, "tflite"), requantize(y, rhs, output, "tflite"))


# ---------------------------------------------------------------- reductions


def average(total: Array, count: Array) -> Array:
    """AVERAGE_POOL: the integers' sum by their number, half away from zero; both int64."""
    half = count // 2
    return np.asarray(np.where(total > 0, (total + half) // count, -((-total + half) // count)))


def mean_multiplier(source: QParams, output: QParams, count: int) -> Multiplier:
    """MEAN: the quotient of the scales, its fixed-point form then divided by `count`, truncating."""
    quotient = multiplier_of(float(F32(source.scale)) / float(F32(output.scale)))
    shift = min(count.bit_length() - 1, 32, 31 + int(quotient.shift))
    fixed = (int(quotient.fixed) << shift) // count
    return Multiplier(np.asarray(fixed, np.int32), np.asarray(int(quotient.shift) - shift, np.int32))


def mean(q: Array, source: QParams, output: QParams, axes: tuple[int, ...], keepdims: bool) -> Array:
    count = math.prod(q.shape[axis] for axis in axes)
    total = centred(q, source).astype(np.int64).sum(axis=axes, keepdims=keepdims).astype(np.int32)
    return clamped(mean_multiplier(source, output, count).of(total), output)


def exp_table(scale: float) -> Array:
    """exp(-scale * d) for d = 0..255 as raw int32 without integer bits; zero where LiteRT leaves it out.

    Differences are brought to 5 integer bits, saturating the multiplier of large scales.
    """
    by = multiplier_of(min(scale * (1 << 26), 2.0**31 - 1))
    left = int(by.shift)
    distance = np.arange(256, dtype=np.int64)
    most = math.floor(31 * 2.0**26 / 2.0**left)
    inside = distance <= most
    shifted = -(np.where(inside, distance, 0) << left)
    powers = gemmlowp.exp_of_negative(gemmlowp.times(shifted, by.fixed.astype(np.int64)))
    return np.where(inside, powers, 0).astype(np.int32)


SUM_BITS = 12
"""Integer bits of softmax's sum of powers."""


def suits_softmax(source: QParams, output: QParams) -> bool:
    """LiteRT writes softmax in steps of 1/256 from the least integer."""
    least = STORAGE_RANGE[output.dtype][0]
    same = source.dtype in ("int8", "uint8") and source.dtype == output.dtype
    if not same or not per_tensor(source, output):
        return False
    return float(output.scale) == 1 / 256 and int(output.zero_point) == least


def softmax(q: Array, source: QParams, output: QParams, axis: int) -> Array:
    """Of 8 bits: powers from a table, their sum with 12 integer bits, a reciprocal by Newton's division."""
    table = exp_table(float(F32(source.scale))).astype(np.int64)
    powers = table[q.max(axis=axis, keepdims=True).astype(np.int32) - q.astype(np.int32)]
    total = gemmlowp.halved(powers, SUM_BITS).sum(axis=axis, keepdims=True)
    digits = np.frexp(total.astype(np.float64))[1]  # of `total`, so that 2^31 is the next power of two
    scale = gemmlowp.reciprocal((total << (32 - digits)) - (1 << 31))
    exponent = 23 + SUM_BITS - (32 - digits)
    return clamped(gemmlowp.halved(gemmlowp.times(scale, powers), exponent), output)


# ---------------------------------------------------------------- functions of one tensor


def every(source: QParams) -> Array:
    """All integers of an 8-bit dtype, in the order of a qnn.lut's entries."""
    low, high = STORAGE_RANGE[source.dtype]
    return np.arange(low, high + 1, dtype=np.int32)


def half_away(x: Array) -> Array:
    """std::round of float32, as int64."""
    wide = x.astype(np.float64)
    return np.asarray((np.sign(wide) * np.floor(np.abs(wide) + 0.5)).astype(np.int64))


def function_table(function: Callable[[Array], Array], source: QParams, output: QParams) -> Array:
    """256 entries of a float function: LOGISTIC, TANH, EXP, ...; `function` maps float32 to float32."""
    real = (F32(source.scale) * (every(source) - source.zero_point).astype(F32)).astype(F32)
    steps = (function(real) * (F32(1) / F32(output.scale))).astype(F32)
    return clamped(half_away(np.clip(steps, F32(-(2**30)), F32(2**30))), output)


def leaky_multipliers(source: QParams, output: QParams, slope: float) -> tuple[Multiplier, Multiplier]:
    """LEAKY_RELU: (of values from zero up, of negative ones), from float32 quotients."""
    x, o = F32(source.scale), F32(output.scale)
    below = F32(F32(x * F32(slope)) / o)
    return multiplier_of(F32(x / o)), signed_multiplier_of(below)


def signed_multiplier_of(real: Any) -> Multiplier:
    """The same of a number of either sign."""
    size = multiplier_of(abs(float(real)))
    return size if real >= 0 else Multiplier(np.asarray(-size.fixed), size.shift)


def leaky_relu(q: Array, source: QParams, output: QParams, slope: float) -> Array:
    above, below = leaky_multipliers(source, output, slope)
    values = (q.astype(np.int32) - source.zero_point).astype(np.int32)
    return clamped(np.where(values >= 0, above.of(values), below.of(values)), output)
