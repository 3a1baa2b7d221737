"""NumPy meaning of the operators that multiply and accumulate. Results are exact int32.

Sums are formed in float64, which holds every partial sum exactly (below 2^53); a result beyond
int32 would wrap in compiled code, so it raises here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.qnn.arithmetic import Array, spread


def to_int32(total: Array) -> Array:
    """Exact float64 sums as int32."""
    if total.size and (total.max() > 2**31 - 1 or total.min() < -(2**31)):
        raise UnsupportedError("an int32 accumulator overflows")
    return total.astype(np.int32)


def minus_zero_point(q: Array, zero_point: Array, axis: int | None) -> Array:
    """q - zero_point as float64."""
    return q.astype(np.float64) - spread(np.asarray(zero_point, np.float64), axis, q.ndim)


def conv(
    data: Array, weight: Array, input_zero_point: Array, kernel_zero_point: Array, *,
    strides: Sequence[int], padding: Sequence[int], dilation: Sequence[int], groups: int = 1,
    data_layout: str, kernel_layout: str, **_: Any,
) -> Array:  # fmt: skip
    """Convolution in 1, 2 or 3 dimensions; padding is [before..., after...] and counts as zero."""
    spatial = len(data_layout) - 2
    x = _to_layout(minus_zero_point(data, input_zero_point, None), data_layout, "N" + _dims(spatial) + "C")
    w = minus_zero_point(weight, kernel_zero_point, kernel_layout.index("O"))
    w = _to_layout(w, kernel_layout, _dims(spatial) + "IO")
    pads = list(zip(padding[:spatial], padding[spatial:], strict=True))
    x = np.pad(x, [(0, 0), *pads, (0, 0)])
    kernel = w.shape[:spatial]
    sizes = [(x.shape[i + 1] - (kernel[i] - 1) * dilation[i] - 1) // strides[i] + 1 for i in range(spatial)]
    out_channels = w.shape[-1]
    total = np.zeros((x.shape[0], *sizes, out_channels))
    for tap in product(*map(range, kernel)):
        window = tuple(
            slice(t * d, t * d + (n - 1) * s + 1, s)
            for t, d, n, s in zip(tap, dilation, sizes, strides, strict=True)
        )
        batch_and_window = (slice(None), *window)
        total += _grouped_matmul(x[batch_and_window], w[tap], groups)
    return _to_layout(to_int32(total), "N" + _dims(spatial) + "C", data_layout)


def conv2d_transpose(
    data: Array, weight: Array, input_zero_point: Array, kernel_zero_point: Array, *,
    strides: Sequence[int], padding: Sequence[int], output_padding: Sequence[int],
    dilation: Sequence[int], groups: int = 1, data_layout: str, kernel_layout: str, **_: Any,
) -> Array:  # fmt: skip
    """Transposed convolution: every input pixel adds its kernel to the output, then the border is cut.

    kernel_layout holds I (all input channels) and O (output channels of one group).
    """
    x = _to_layout(minus_zero_point(data, input_zero_point, None), data_layout, "NHWC")
    w = minus_zero_point(
        weight, kernel_zero_point, None if not np.ndim(kernel_zero_point) else kernel_layout.index("O")
    )
    w = _to_layout(w, kernel_layout, "HWIO")
    batch, height, width, _channels = x.shape
    per_group = w.shape[3]
    full = [
        (n - 1) * s + (k - 1) * d + 1 + extra
        for n, s, k, d, extra in zip(
            (height, width), strides, w.shape[:2], dilation, output_padding, strict=True
        )
    ]
    total = np.zeros((batch, *full, per_group * groups))
    for i, j in product(range(w.shape[0]), range(w.shape[1])):
        tap = _transposed_tap(x, w[i, j], groups)
        rows = slice(i * dilation[0], i * dilation[0] + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(j * dilation[1], j * dilation[1] + (width - 1) * strides[1] + 1, strides[1])
        total[:, rows, columns] += tap
    top, left, bottom, right = padding
    cut = total[:, top : full[0] - bottom, left : full[1] - right]
    return _to_layout(to_int32(cut), "NHWC", data_layout)


def dense(data: Array, weight: Array, input_zero_point: Array, kernel_zero_point: Array, **_: Any) -> Array:
    """data [..., K] times weight [N, K] transposed -> [..., N]."""
    x = minus_zero_point(data, input_zero_point, None)
    w = minus_zero_point(weight, kernel_zero_point, 0)
    return to_int32(x @ w.T)


def batch_matmul(x: Array, y: Array, x_zero_point: Array, y_zero_point: Array, **_: Any) -> Array:
    """x [..., M, K] times y [..., K, N]; leading dimensions broadcast."""
    return to_int32(minus_zero_point(x, x_zero_point, None) @ minus_zero_point(y, y_zero_point, None))


def _dims(spatial: int) -> str:
    return "DHW"[3 - spatial :] if spatial > 1 else "W"


def _to_layout(x: Array, source: str, target: str) -> Array:
    return np.ascontiguousarray(x.transpose([source.index(c) for c in target]))


def _grouped_matmul(x: Array, w: Array, groups: int) -> Array:
    """x [..., C] times w [C / groups, O] with O split in groups."""
    if groups == 1:
        return np.asarray(x @ w)
    per_group = x.reshape(*x.shape[:-1], groups, -1)
    weights = w.reshape(w.shape[0], groups, -1)
    return np.asarray(np.einsum("...gc,cgo->...go", per_group, weights)).reshape(*x.shape[:-1], -1)


def _transposed_tap(x: Array, w: Array, groups: int) -> Array:
    """x [..., C] times w [C, O / groups], group by group."""
    if groups == 1:
        return np.asarray(x @ w)
    per_group = x.reshape(*x.shape[:-1], groups, -1)
    weights = w.reshape(groups, -1, w.shape[1])
    return np.asarray(np.einsum("...gc,gco->...go", per_group, weights)).reshape(*x.shape[:-1], -1)
