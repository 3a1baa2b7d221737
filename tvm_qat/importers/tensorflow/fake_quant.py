"""FakeQuantWithMinMax*: ranges that training learned, with TensorFlow's own nudging and rounding."""

from __future__ import annotations

import numpy as np

from tvm_qat.errors import InputError
from tvm_qat.importers.tensorflow.model import Array
from tvm_qat.importers.tensorflow.node import Node, as_tensor
from tvm_qat.ir import Expr
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams, nudged_range


def args(node: Node) -> Expr:
    """The range is a pair of attributes."""
    low, high = np.float32(node.real("min", -6.0)), np.float32(node.real("max", 6.0))
    return _fake_quantized(node, np.asarray(low), np.asarray(high), None, "nudged_inverse")


def variables(node: Node) -> Expr:
    low, high = _range(node)
    if low.size != 1 or high.size != 1:
        raise InputError("its range is not a pair of numbers")
    return _fake_quantized(node, low.reshape(()), high.reshape(()), None, "nudged_divided")


def per_channel(node: Node) -> Expr:
    """A range for each place along the last axis."""
    (low, high), shape = _range(node), node.shape(0)
    if low.shape != high.shape or low.ndim != 1 or not shape or low.size != shape[-1]:
        raise InputError(f"ranges of shapes {low.shape} and {high.shape} for data of shape {list(shape)}")
    return _fake_quantized(node, low, high, len(shape) - 1, "nudged_inverse")


def _range(node: Node) -> tuple[Array, Array]:
    return node.constant(1, "a range"), node.constant(2, "a range")


def _fake_quantized(node: Node, low: Array, high: Array, axis: int | None, formula: str) -> Expr:
    bits = node.whole("num_bits", 8)
    if not 2 <= bits <= 16:
        raise InputError(f"it quantizes to {bits} bits, not 2 to 16")
    data = node.value(0)
    dead = (low == 0) & (high == 0)
    if np.any(dead):
        data = _without(data, dead)
        low, high = np.where(dead, np.float32(-1), low), np.where(dead, np.float32(1), high)
    grid = nudged_range(low, high, bits=bits, narrow_range=node.flag("narrow_range"), axis=axis)
    if isinstance(data, np.ndarray):
        grid = _signed(grid, bits)
    return build.fake_quantize(as_tensor(data), grid, formula)


def _without(data: object, dead: Array) -> Array:
    """Where the range is [0, 0] TensorFlow's result is zero: so are weights there, on any grid."""
    if not isinstance(data, np.ndarray):
        raise InputError("its range is [0, 0]: it never saw data; train or calibrate it")
    return np.asarray(np.where(dead, 0, data), data.dtype)


def _signed(grid: QParams, bits: int) -> QParams:
    """The same grid around zero: weights are int8, as kernels want them."""
    qmin, qmax = grid.range
    half = 1 << bits - 1
    dtype = grid.dtype.removeprefix("u")
    return grid.with_(zero_point=grid.zero_point - half, dtype=dtype, qmin=qmin - half, qmax=qmax - half)
