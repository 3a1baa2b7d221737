"""Relay's arithmetic in NumPy, from its documentation and in Python's integers where it matters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def multiplier_and_shift(real: float) -> tuple[int, int]:
    """real = multiplier * 2^(shift - 31), the multiplier in [2^30, 2^31), rounded half away."""
    significand, shift = math.frexp(real)
    fixed = math.floor(significand * 2**31 + 0.5)
    return (fixed // 2, shift + 1) if fixed == 2**31 else (fixed, shift)


def fixed_point(x: int, multiplier: int, shift: int, rounding: str) -> int:
    """x * multiplier * 2^(shift - 31), rounded once in 64 bits."""
    left, right = max(shift, 0), max(-shift, 0) + 31
    half = 1 << (right - 1)
    nudge = half - 1 if rounding == "TONEAREST" and x < 0 else half
    return ((x << left) * multiplier + nudge) >> right


def requantize(
    q: Array, scale: Any, zero_point: int, out_scale: float, out_zero_point: int, dtype: str, *,
    axis: int = -1, rounding: str = "UPWARD",
) -> Array:  # fmt: skip
    scales = np.broadcast_to(np.asarray(scale, np.float32), q.shape[axis] if np.ndim(scale) else ())
    info = np.iinfo(dtype)
    result = np.empty(q.shape, dtype)
    for place in np.ndindex(q.shape):
        one = scales[place[axis]] if np.ndim(scale) else scales
        real = float(np.float32(one)) / float(np.float32(out_scale))
        whole = fixed_point(int(q[place]) - zero_point, *multiplier_and_shift(real), rounding)
        result[place] = min(max(whole + out_zero_point, info.min), info.max)
    return result


def quantize(x: Array, scale: float, zero_point: int, dtype: str) -> Array:
    """round(x / scale) half away from zero, plus the zero point, clipped."""
    steps = (x.astype(np.float32) / np.float32(scale)).astype(np.float64)
    whole = np.sign(steps) * np.floor(np.abs(steps) + 0.5) + zero_point
    info = np.iinfo(dtype)
    return np.clip(whole, info.min, info.max).astype(dtype)


def dequantize(q: Array, scale: Any, zero_point: Any) -> Array:
    return ((q.astype(np.int32) - zero_point).astype(np.float32) * np.float32(scale)).astype(np.float32)


def conv2d_nhwc(x: Array, w: Array, zero_points: tuple[int, int], stride: int, pad: int) -> Array:
    """int64 sums; w is HWIO; padding counts as the input's zero point."""
    wide = np.pad(x.astype(np.int64) - zero_points[0], ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    kernel = w.astype(np.int64) - zero_points[1]
    height = (wide.shape[1] - w.shape[0]) // stride + 1
    width = (wide.shape[2] - w.shape[1]) // stride + 1
    result = np.zeros((x.shape[0], height, width, w.shape[3]), np.int64)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            part = wide[:, i : i + stride * height : stride, j : j + stride * width : stride]
            result += part @ kernel[i, j]
    return result
