"""Sums of products drawn by a seed: every remainder meets every kind, dtype, end of range and epilogue.

What is drawn always holds the hard values: a channel whose weights are all at their greatest and one
at their least, on pixels that are all at the ends of their range (so sums reach their extremes), and
a channel that passes one input on at half its scale (so every odd value is a tie).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.kernels.harness import Array, Case
from tests.kernels.linear_cases import integers
from tvm_qat.ir import BlockBuilder, Expr, TensorType, Var, const, relax, shape_of
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import STORAGE_RANGE, QParams

Rng = np.random.Generator
Anchor = Callable[..., Expr]

_OUTERS = (1, 7, 8, 15, 16, 17, 31, 32, 33, 48, 63, 64, 65, 80, 128, 130)
_DTYPES = ("uint8", "int8", "uint8", "int8", "int16")


def drawn_linear(seed: int, kinds: tuple[str, ...] = ()) -> list[Case]:
    """One case for each remainder 1 to 33, of `kinds` or of all in turn."""
    names = kinds or tuple(_KINDS)
    return [_drawn(seed, i, names[(i + seed) % len(names)]) for i in range(1, 34)]


def _drawn(seed: int, size: int, kind: str) -> Case:
    rng = np.random.default_rng((seed, size))
    dtype = str(rng.choice(_DTYPES))
    anchor, inputs, axis = _KINDS[kind](rng, size, dtype)
    variables = [Var(f"x{i}", TensorType(x.shape, str(x.dtype))) for i, x in enumerate(inputs)]
    shape = shape_of(BlockBuilder().normalize(anchor(*variables)))
    assert shape is not None
    steps, more = _epilogue(rng, shape, axis)

    def graph(*values: Var) -> list[Any]:
        first = len(inputs)
        return [anchor(*values[:first]), *(lambda v, s=s: s(v, *values[first:]) for s in steps)]

    symbolic = ((0, 0),) if kind == "dense" and not more and rng.random() < 0.3 else ()
    name = f"seed {seed} {kind} {size} {dtype} to {shape}{' symbolic' if symbolic else ''}"
    return Case(name, graph, (*inputs, *more), symbolic, composite=True)


def _weights(rng: Rng, dtype: str, outer: int, *rest: int) -> tuple[Array, Any]:
    """[outer, ...] and its zero point: 8 bits, 4 bits in 8, uint8 around 128, a zero point per channel.

    16-bit data meets 4 bits, so that no sum leaves int32.
    """
    kind = "int4" if dtype == "int16" else rng.choice(["int8", "int8", "int4", "uint8", "channels"])
    low, high = (-8, 7) if kind == "int4" else (-128, 127)
    values = rng.integers(low, high, (outer, *rest), endpoint=True)
    values[0], values[-1] = high, low
    if outer > 2:
        values[1] = 0
        values[1].reshape(-1)[rng.integers(values[1].size)] = 1
    if kind == "uint8":
        return (values + 128).astype(np.uint8), 128
    if kind == "channels":
        return (values // 2).astype(np.int8), rng.integers(-3, 4, outer)
    return values.astype(np.int8), 0


def _data(rng: Rng, dtype: str, *shape: int) -> tuple[Array, int]:
    """The first and the last pixel lie at the ends of the range; and a zero point."""
    x, info = integers(rng, dtype, *shape), np.iinfo(dtype)
    pixels = x.reshape(-1, shape[-1])
    pixels[0], pixels[-1] = info.max, info.min
    return x, int(rng.choice([info.min, info.max, 0, rng.integers(info.min, info.max)]))


def _dense(rng: Rng, size: int, dtype: str) -> tuple[Anchor, list[Array], int]:
    outer = int(rng.choice(_OUTERS))
    x, zero = _data(rng, dtype, int(rng.integers(1, 16)), size)
    w, kernel_zero = _weights(rng, dtype, outer, size)
    return lambda v: qnn.dense(v, const(w), zero, kernel_zero), [x], 1


def _batched(rng: Rng, size: int, dtype: str) -> tuple[Anchor, list[Array], int]:
    x, zero = _data(rng, "uint8" if dtype == "int16" else dtype, 2, int(rng.integers(1, 16)), size)
    y = integers(rng, "int8", 2, size, int(rng.choice(_OUTERS)))
    y[0, :, 0], y[1, :, -1] = 127, -128
    kernel_zero = int(rng.choice([0, 0, 5]))
    return lambda a, b: qnn.batch_matmul(a, b, zero, kernel_zero), [x, y], 2


def drawn_window(rng: Rng, dims: int, most: int) -> tuple[tuple[int, ...], dict[str, Any], tuple[int, ...]]:
    """Kernel, attributes, and an image that holds at least one window."""
    kernel = tuple(int(k) for k in rng.integers(1, most, dims, endpoint=True))
    strides = [int(s) for s in rng.integers(1, 2, dims, endpoint=True)]
    dilation = [int(d) for d in rng.choice([1, 1, 2], dims)]
    padding = [int(rng.integers(0, k, endpoint=True)) for k in (*kernel, *kernel)]
    least = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    room = [int(rng.integers(0, 2 if axis < dims - 1 else 26)) for axis in range(dims)]
    size = tuple(low + more for low, more in zip(least, room, strict=True))
    return kernel, {"strides": strides, "dilation": dilation, "padding": padding}, size


def _conv(
    dims: int, most: int, groups: int = 1, channels_first: bool = False
) -> Callable[[Rng, int, str], tuple[Anchor, list[Array], int]]:
    letters = "DHW"[3 - dims :]

    def make(rng: Rng, size: int, dtype: str) -> tuple[Anchor, list[Array], int]:
        kernel, attrs, image = drawn_window(rng, dims, most)
        outer = int(rng.choice(_OUTERS)) * groups if groups < 3 else 5 * groups
        x, zero = _data(rng, dtype, 1, *image, size * groups)
        w, kernel_zero = _weights(rng, dtype, outer, *kernel, size)
        layouts = (f"N{letters}C", f"O{letters}I")
        if channels_first:
            x, w = np.moveaxis(x, -1, 1), np.moveaxis(w, -1, 1)
            layouts = (f"NC{letters}", f"OI{letters}")
        attrs = {**attrs, "groups": groups, "data_layout": layouts[0], "kernel_layout": layouts[1]}
        axis = 1 if channels_first else dims + 1
        return lambda v: qnn.conv(v, const(w), zero, kernel_zero, **attrs), [x], axis

    return make


def _depthwise(rng: Rng, size: int, dtype: str) -> tuple[Anchor, list[Array], int]:
    kernel, attrs, image = drawn_window(rng, 2, 5)
    channels = size + int(rng.choice([0, 15, 48]))
    x, zero = _data(rng, dtype, 1, *image, channels)
    w, kernel_zero = _weights(rng, dtype, channels, *kernel, 1)
    attrs = {**attrs, "groups": channels, "data_layout": "NHWC", "kernel_layout": "OHWI"}
    return lambda v: qnn.conv(v, const(w), zero, kernel_zero, **attrs), [x], 3


def _transposed(rng: Rng, size: int, dtype: str) -> tuple[Anchor, list[Array], int]:
    kernel = tuple(int(k) for k in rng.integers(1, 4, 2))
    stride = int(rng.integers(1, 3))
    outer = int(rng.choice(_OUTERS))
    x, zero = _data(rng, dtype, 1, 3, int(rng.integers(2, 12)), size)
    w, kernel_zero = _weights(rng, dtype, outer, *kernel, size)
    attrs = {
        "strides": [stride] * 2, "padding": [int(p) for p in rng.integers(0, 2, 4)], "groups": 1,
        "output_padding": [stride - 1] * 2, "dilation": [1, 1], "data_layout": "NHWC",
        "kernel_layout": "IHWO",
    }  # fmt: skip
    turned = np.ascontiguousarray(np.moveaxis(w, (0, 3), (3, 0)))
    return lambda v: qnn.conv2d_transpose(v, const(turned), zero, kernel_zero, **attrs), [x], 3


_KINDS: dict[str, Callable[[Rng, int, str], tuple[Anchor, list[Array], int]]] = {
    "dense": _dense,
    "conv2d": _conv(2, 4),
    "depthwise": _depthwise,
    "batched": _batched,
    "conv1d": _conv(1, 7),
    "grouped": _conv(2, 3, groups=2),
    "narrow": _conv(2, 3, groups=3),
    "transposed": _transposed,
    "conv3d": _conv(3, 2),
    "NCHW": _conv(2, 3, channels_first=True),
    "1x1": _conv(2, 1),
}  # fmt: skip


def _epilogue(rng: Rng, shape: Any, axis: int) -> tuple[list[Any], list[Array]]:
    """Steps of (value, tensors added), and these tensors."""
    outer, steps, more = shape[axis], [], []
    if rng.random() < 0.8:
        bias = rng.integers(-(2**14), 2**14, (outer, *[1] * (len(shape) - 1 - axis))).astype(np.int32)
        steps.append(lambda sums, *_: relax.op.add(sums, const(bias)))
    dtype = str(rng.choice(["uint8", "int8"]))
    low, high = STORAGE_RANGE[dtype]
    narrow = (low + 5, high - 28) if rng.random() < 0.2 else (low, high)
    zero = int(np.clip(rng.choice([low, high, 0, 7]), *narrow))
    grid = QParams(np.array(1.0), np.array(zero), dtype, None, *narrow)
    source = QParams(np.array(2.0 ** -rng.integers(1, 12)), dtype="int32")
    if rng.random() < 0.7:
        scale = 2.0 ** rng.uniform(-12, -4, outer)
        scale[1 % outer] = 0.5
        source = QParams(scale, dtype="int32", axis=axis)
    rounding = str(
        rng.choice(["half_even", "half_even", "half_even", "tflite", "tflite_single", "single_away"])
    )
    steps.append(lambda sums, *_: qnn.requantize(sums, source, grid, rounding))
    follower = str(rng.choice(["", "", "residual", "lut", "clip", "residual, lut"]))
    if "residual" in follower:
        other, result = QParams(0.7, 20, "uint8"), QParams(1.1, -9, "int8")
        more.append(integers(rng, "uint8", *shape))
        steps.append(lambda v, y: qnn.elementwise("add", v, y, grid, other, result))
    if "lut" in follower:
        table = integers(rng, str(rng.choice(["uint8", "int8"])), 256)
        steps.append(lambda v, *_: qnn.lut(v, table))
    if follower == "clip":
        bounds = relax.prim_value(low + 9), relax.prim_value(high - 9)
        steps.append(lambda v, *_: relax.op.clip(v, *bounds))
    return steps, more
