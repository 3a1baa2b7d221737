"""Deeploy's integer approximations of layer norm, softmax and gelu, as its C kernels define them.

They stand between RequantShifts, in graphs of whole numbers (`whole`). All of them take 8-bit values.
Layer norm and mean divide as C does, with exact integers; IntegerMean rounds to nearest.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.whole import attribute
from tvm_qat.importers.onnx.whole_range import ONE, interval
from tvm_qat.ir import BlockBuilder, Expr, const, relax, static_shape
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams


def i_gelu(builder: BlockBuilder, node: Node) -> Expr:
    """x * ((one + L) // 2), L = sign(x) * (one - (min(|x|, -b) + b)^2); at most 24 bits for 8-bit x."""
    data = _bytes(builder, node)
    b, one = (float(attribute(node, name)) for name in ("b", "one"))
    near = emit(builder, relax.op.minimum(emit(builder, relax.op.abs(data)), _number(-b)))
    distance = emit(builder, relax.op.add(near, _number(b)))
    square = emit(builder, relax.op.multiply(distance, distance))
    rest = emit(builder, relax.op.subtract(_number(one), square))
    erf = emit(builder, relax.op.multiply(emit(builder, relax.op.sign(data)), rest))
    twice = emit(builder, relax.op.add(erf, _number(one)))
    half = emit(builder, relax.op.floor(emit(builder, relax.op.multiply(twice, _number(0.5)))))
    return relax.op.multiply(data, half)


def i_layer_norm(builder: BlockBuilder, node: Node) -> Expr:
    """((x - mean) * weight / std + bias) >> log2(D) over the last axis; std = isqrt(variance + 1)."""
    levels, divisor = (int(attribute(node, name)) for name in ("n_levels", "D"))
    scale, offset = node.constant(1), node.constant(2)
    if scale is None or offset is None:
        raise UnsupportedError("a weight or bias that is computed at run time is not supported")
    if divisor < 1 or not 2 <= levels <= 1 << 8 or levels % 2:
        raise InputError(f"D {divisor} and n_levels {levels} make no range")
    count = _length(node)
    x = emit(builder, relax.op.astype(_bytes(builder, node), "int64"))
    mean = _divided(builder, _summed(builder, x), count)
    centred = emit(builder, relax.op.subtract(x, mean))
    square = emit(builder, relax.op.multiply(centred, centred))
    variance = _divided(builder, _summed(builder, square), count)
    above = emit(builder, relax.op.add(variance, const(1, "int64")))
    # The root of a whole number below 2^17 is correctly rounded: it never reaches the next whole one.
    root = emit(builder, relax.op.sqrt(emit(builder, relax.op.astype(above, "float32"))))
    std = emit(builder, relax.op.astype(emit(builder, relax.op.floor(root)), "int64"))
    scaled = emit(builder, relax.op.multiply(centred, const(scale, "int64")))
    ratio = emit(builder, relax.op.divide(scaled, std))
    moved = emit(builder, relax.op.add(ratio, const(offset, "int64")))
    result = emit(builder, relax.op.floor_divide(moved, const(divisor, "int64")))
    return _on_grid(builder, result, "int8", -levels // 2, levels // 2 - 1)


def ita_max(builder: BlockBuilder, node: Node) -> Expr:
    """255 * 256 / sum(256 >> s) >> s over the last axis, s = (max - x + 16) >> 5; 0 to 255."""
    levels = int(attribute(node, "n_levels"))
    if levels != 1 << 8:
        raise UnsupportedError(f"n_levels {levels} is not supported, only 256")
    if _length(node) > 1 << 16:
        raise UnsupportedError("rows beyond 65,536 values are not supported")
    x = emit(builder, relax.op.astype(_bytes(builder, node), "int32"))
    greatest = emit(builder, relax.op.max(x, axis=-1, keepdims=True))
    below = emit(builder, relax.op.subtract(greatest, x))
    rounded = emit(builder, relax.op.add(below, const(16, "int32")))
    shift = emit(builder, relax.op.right_shift(rounded, const(5, "int32")))
    power = emit(builder, relax.op.right_shift(const(256, "int32"), shift))
    inverse = emit(builder, relax.op.divide(const(255 * 256, "int32"), _summed(builder, power)))
    return _on_grid(builder, emit(builder, relax.op.right_shift(inverse, shift)), "uint8", 0, 255)


def integer_mean(builder: BlockBuilder, node: Node) -> Expr:
    """The mean over `axes`, rounded to nearest, halves up."""
    low, high = _range(builder, node)
    shape, axes = static_shape(node.require(0)), node.wholes("axes", ())
    if shape is None or not axes or any(not -len(shape) <= axis < len(shape) for axis in axes):
        raise UnsupportedError(f"axes {axes} of a tensor of shape {shape} are not supported")
    count = int(np.prod([shape[axis] for axis in axes]))
    data = emit(builder, relax.op.astype(node.require(0), "int64"))
    total = emit(builder, relax.op.sum(data, axes, bool(node.whole("keepdims", 1))))
    twice = emit(builder, relax.op.multiply(total, const(2, "int64")))
    moved = emit(builder, relax.op.add(twice, const(count, "int64")))
    result = emit(builder, relax.op.floor_divide(moved, const(2 * count, "int64")))
    return _on_grid(builder, result, "int8" if high < 128 else "uint8" if low >= 0 else "int16", low, high)


def _range(builder: BlockBuilder, node: Node) -> tuple[int, int]:
    """The bounds of the data, known to be whole and of 8 bits, signed or not."""
    low, high = interval(builder, node.require(0)) or (-math.inf, math.inf)
    if low < -128 or high > 255:
        reason = "its input is not known to have 8 bits; end the layer before with RequantShift"
        raise UnsupportedError(reason)
    return int(low), int(high)


def _bytes(builder: BlockBuilder, node: Node) -> Expr:
    _range(builder, node)
    return node.require(0)


def _length(node: Node) -> int:
    shape = static_shape(node.require(0))
    if not shape:
        raise UnsupportedError("the length of its rows is not known")
    return shape[-1]


def _number(value: float) -> Expr:
    return const(np.float32(value))


def _summed(builder: BlockBuilder, value: Expr) -> Expr:
    return emit(builder, relax.op.sum(value, axis=-1, keepdims=True))


def _divided(builder: BlockBuilder, value: Expr, count: int) -> Expr:
    """Towards zero, as C divides."""
    return emit(builder, relax.op.divide(value, const(count, "int64")))


def _on_grid(builder: BlockBuilder, integers: Expr, dtype: str, low: int, high: int) -> Expr:
    """Whole numbers as floats, saturated to the range that they are said to have."""
    real = emit(builder, relax.op.astype(integers, "float32"))
    return build.fake_quantize(real, QParams(ONE, dtype=dtype, qmin=low, qmax=high))


CONVERTERS: dict[str, Any] = {
    "iGELU": i_gelu,
    "iLayerNorm": i_layer_norm,
    "ITAMax": ita_max,
    "IntegerMean": integer_mean,
}
