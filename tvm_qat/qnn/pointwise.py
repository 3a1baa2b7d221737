"""NumPy meaning of the operators on quantized values that are not sums of products."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from tvm_qat.fixed_point import bits_for
from tvm_qat.qnn import litert
from tvm_qat.qnn.arithmetic import F32, Array, centred, multiplier, requantize, saturate, spread
from tvm_qat.qparams import QParams


def _scaled(q: Array, source: QParams, target: QParams) -> Array:
    """The real value of q in steps of the target, float32."""
    factor = spread(multiplier(source, target), source.axis, q.ndim)
    return (centred(q, source).astype(F32) * factor).astype(F32)


def add(
    x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, rounding: str = "half_even", **_: Any
) -> Array:
    """Both products are rounded to float32 before they are added; no fused multiply-add."""
    real = (_scaled(x, lhs, output) + _scaled(y, rhs, output)).astype(F32)
    return saturate(real, output.zero_point, output, rounding)


def subtract(
    x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, rounding: str = "half_even", **_: Any
) -> Array:
    real = (_scaled(x, lhs, output) - _scaled(y, rhs, output)).astype(F32)
    return saturate(real, output.zero_point, output, rounding)


def multiply(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, **_: Any) -> Array:
    """float32(x - zx) * float32(y - zy) * float32(sx * sy / so)."""
    real = (centred(x, lhs).astype(F32) * centred(y, rhs).astype(F32)).astype(F32)
    return saturate(
        (real * product_factor(lhs, rhs, output, real.ndim)).astype(F32), output.zero_point, output
    )


def product_factor(lhs: QParams, rhs: QParams, output: QParams, ndim: int) -> Array:
    """float32(float32(sx * sy) / so), broadcastable against the product."""
    scale = spread(lhs.scale, lhs.axis, ndim) * spread(rhs.scale, rhs.axis, ndim)
    return np.asarray(scale.astype(F32) / output.scale.astype(F32), F32)


def divide(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, **_: Any) -> Array:
    """float32(x - zx) / float32(y - zy) * float32(sx / sy / so); 0 / 0 gives the least value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        real = (centred(x, lhs).astype(F32) / centred(y, rhs).astype(F32)).astype(F32)
        scaled = (real * quotient_factor(lhs, rhs, output, real.ndim)).astype(F32)
    return saturate(scaled, output.zero_point, output)


def quotient_factor(lhs: QParams, rhs: QParams, output: QParams, ndim: int) -> Array:
    """float32(float32(sx / sy) / so), broadcastable against the quotient."""
    scale = spread(lhs.scale, lhs.axis, ndim) / spread(rhs.scale, rhs.axis, ndim)
    return np.asarray(scale.astype(F32) / output.scale.astype(F32), F32)


def minimum(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, **_: Any) -> Array:
    """Rounding is monotone, so the lesser of the requantized values is the requantized lesser."""
    return np.minimum(requantize(x, lhs, output), requantize(y, rhs, output))


def maximum(x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, **_: Any) -> Array:
    return np.maximum(requantize(x, lhs, output), requantize(y, rhs, output))


def concatenate(
    parts: Sequence[Array], inputs: Sequence[QParams], output: QParams, *, axis: int, **_: Any
) -> Array:
    """Each part requantized to the output's grid; a part already on it is copied."""
    moved = [
        part
        if source.same_grid(output) and source.range == output.range
        else requantize(part, source, output)
        for part, source in zip(parts, inputs, strict=True)
    ]
    return np.concatenate(moved, axis=axis)


def avg_pool(
    q: Array, source: QParams, output: QParams, *, pool_size: Sequence[int], strides: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], count_include_pad: bool, layout: str,
    ceil_mode: bool = False, rounding: str = "half_even", **_: Any,
) -> Array:  # fmt: skip
    """float32(sum of q - zero_point) * (float32(s_in / s_out) / count); padding counts as zero.

    `count` is the window's size, without its padded part unless count_include_pad. Rounding `tflite`
    divides the sum of q itself: input and output have one grid.
    """
    dims = len(pool_size)
    first = layout.index("W") - dims + 1
    addends = q if rounding == "tflite" else centred(q, source)
    values = np.moveaxis(addends.astype(np.int64), range(first, first + dims), range(dims))
    sizes = pooled_sizes(values.shape[:dims], pool_size, strides, padding, dilation, ceil_mode)
    tail = [
        max(0, (n - 1) * s + (k - 1) * d + 1 - size - before)
        for n, s, k, d, size, before in zip(
            sizes, strides, pool_size, dilation, values.shape, padding, strict=False
        )
    ]
    spatial_pads = list(zip(padding[:dims], tail, strict=True))
    rest = [(0, 0)] * (values.ndim - dims)
    padded = np.pad(values, spatial_pads + rest)
    inside = np.pad(np.ones(values.shape[:dims], np.int64), spatial_pads)
    if count_include_pad:
        declared = tuple(
            slice(0, before + size + after)
            for before, size, after in zip(padding[:dims], values.shape, padding[dims:], strict=False)
        )
        inside[declared] = 1
    total = np.zeros((*sizes, *padded.shape[dims:]), np.int64)
    count = np.zeros(sizes, np.int64)
    for tap in product(*map(range, pool_size)):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, sizes, strides, strict=True)
        )
        total += padded[window]
        count += inside[window]
    if rounding == "tflite":
        whole = litert.average(total, count.reshape(*sizes, *[1] * (values.ndim - dims)))
        inside_range = np.clip(whole, *output.range).astype(output.dtype)
        return np.moveaxis(inside_range, range(dims), range(first, first + dims))
    with np.errstate(divide="ignore", invalid="ignore"):  # a window of padding alone: the least value
        factor = (multiplier(source, output) / count.astype(F32)).astype(F32)
        real = (total.astype(F32) * factor.reshape(*sizes, *[1] * (values.ndim - dims))).astype(F32)
    return np.moveaxis(saturate(real, output.zero_point, output), range(dims), range(first, first + dims))


def pooled_sizes(
    shape: Sequence[int], pool_size: Sequence[int], strides: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], ceil_mode: bool,
) -> list[int]:  # fmt: skip
    """Output sizes; in ceil mode a window must still begin inside the input or its left padding."""
    dims = len(pool_size)
    sizes = []
    for i in range(dims):
        span = shape[i] + padding[i] + padding[i + dims] - (pool_size[i] - 1) * dilation[i] - 1
        size = -(-span // strides[i]) + 1 if ceil_mode else span // strides[i] + 1
        if ceil_mode and (size - 1) * strides[i] >= shape[i] + padding[i]:
            size -= 1
        sizes.append(size)
    return sizes


def mean(
    q: Array, source: QParams, output: QParams, *, axis: Sequence[int], keepdims: bool,
    rounding: str = "half_even", **_: Any,
) -> Array:  # fmt: skip
    """float32(sum of q - zero_point) * (float32(s_in / s_out) / count)."""
    axes = tuple(axis)
    if rounding == "tflite":
        return litert.mean(q, source, output, axes, bool(keepdims))
    total = centred(q, source).astype(np.int64).sum(axis=axes, keepdims=bool(keepdims))
    count = int(np.prod([q.shape[a] for a in axes]))
    factor = F32(multiplier(source, output) / F32(count))
    return saturate((total.astype(F32) * factor).astype(F32), output.zero_point, output)


def softmax(
    q: Array, source: QParams, output: QParams, *, axis: int, rounding: str = "half_even", **_: Any
) -> Array:
    """Exponentials from a table of integers, an exact integer sum, one float32 division.

    The sum is exact, so no order of summation can change the result.
    """
    if rounding == "tflite":
        return litert.softmax(q, source, output, axis)
    table = exp_table(float(source.scale), q.shape[axis])
    distance = q.max(axis=axis, keepdims=True).astype(np.int32) - q.astype(np.int32)
    powers = table[distance]
    total = powers.sum(axis=axis, keepdims=True, dtype=np.int32)
    share = (powers.astype(F32) / total.astype(F32)).astype(F32)
    real = (share * (F32(1) / output.scale.astype(F32))).astype(F32)
    return saturate(real, output.zero_point, output)


def exp_table(scale: float, length: int) -> Array:
    """round(exp(-scale * d) * 2^b) for d = 0..255, int32; b leaves room to add up `length` of them."""
    bits = 30 - bits_for(length)
    return np.asarray(np.rint(np.exp(-scale * np.arange(256)) * 2.0**bits).astype(np.int32))


def lut(q: Array, table: Array, **_: Any) -> Array:
    """table[q - least value of q's dtype]; q is int8 or uint8, table has 256 entries."""
    return np.asarray(table[q.astype(np.int32) - np.iinfo(q.dtype).min])
