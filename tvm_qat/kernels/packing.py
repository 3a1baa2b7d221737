"""Constant weights, prepared at compile time for the plain kernels.

The zero point of the weights is subtracted here, in the narrowest dtype that holds the result.
The zero point of the data leaves the inner loop by
sum (x - zx) * w = sum x * w - zx * sum w; the second term joins the bias.
"""

from __future__ import annotations

import numpy as np

from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.runs import split_runs
from tvm_qat.qnn.arithmetic import Array, spread


def centred_weights(spec: LinearSpec, weight: Array, zero_point: Array) -> Array:
    """weight - zero_point as int64 [groups, outer, D, H, W, inner]."""
    letters = spec.kernel_layout
    axis = letters.index("O") if zero_point.ndim else None
    values = weight.astype(np.int64) - spread(zero_point.astype(np.int64), axis, weight.ndim)
    first, last = ("I", "O") if spec.mirrored else ("O", "I")
    order = [first, *(s for s in "DHW" if s in letters), last]
    values = values.transpose([letters.index(letter) for letter in order])
    values = values.reshape(spec.groups, -1, *spec.kernel, values.shape[-1])
    if spec.mirrored:
        values = values.transpose(0, 5, 2, 3, 4, 1)[:, :, ::-1, ::-1, ::-1]
    return np.ascontiguousarray(values)


def narrowest(values: Array) -> Array:
    """The same integers in the smallest dtype that holds them all."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    for dtype in ("int8", "uint8", "int16", "int32"):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return values.astype(dtype)
    raise AssertionError("a quantized weight is wider than int32")


def pack(weights: Array, channels: int) -> Array:
    """[groups, outer, D, H, W, inner] -> [blocks, D, H, W * inner, channels], zeros at the end of a group."""
    groups, outer, depth, height, width, inner = weights.shape
    blocks = -(-outer // channels)
    padded = np.zeros((groups, blocks * channels, depth, height, width, inner), weights.dtype)
    padded[:, :outer] = weights
    split = padded.reshape(groups * blocks, channels, depth, height, width * inner)
    return narrowest(np.ascontiguousarray(np.moveaxis(split, 1, -1)))


def pack_dot(spec: LinearSpec, weights: Array, channels: int, isa: DotProduct) -> Array:
    """[groups, outer, D, H, W, inner] -> [blocks, D, H, taps * steps, channels * depth].

    A step holds `depth` neighbouring inputs of each channel of a block, see `runs`.
    """
    groups, outer, depth, height, width, inner = weights.shape
    blocks = -(-outer // channels)
    padded = np.zeros((groups, blocks * channels, depth, height, width, inner), weights.dtype)
    padded[:, :outer] = weights
    steps = split_steps(spec, padded.reshape(groups * blocks, channels, *weights.shape[2:]), isa)
    ordered = np.moveaxis(steps, 1, -2)  # [..., taps, steps, channels, depth]
    return np.ascontiguousarray(
        ordered.reshape(groups * blocks, depth, height, -1, channels * isa.depth)
    ).astype(isa.weight)


def split_steps(spec: LinearSpec, weights: Array, isa: DotProduct) -> Array:
    """[groups, outer, D, H, W, inner] -> [groups, outer, D, H, taps, steps, depth], see `runs`."""
    taps = 1 if spec.merges_columns else weights.shape[4]
    return split_runs(isa, weights.reshape(*weights.shape[:4], taps, spec.run))


def pack_depthwise(weights: Array) -> Array:
    """[channels, 1, D, H, W, 1] -> [D, H, W, channels]."""
    return narrowest(np.ascontiguousarray(np.moveaxis(weights[:, 0, ..., 0], 0, -1)))


def pack_vector(values: Array, spec: LinearSpec, channels: int) -> Array:
    """[groups * outer] -> int32 [blocks * channels] in the order of `pack`."""
    blocks = -(-spec.outer // channels)
    padded = np.zeros((spec.groups, blocks * channels), np.int64)
    padded[:, : spec.outer] = values.reshape(spec.groups, spec.outer)
    return wrapped(padded.reshape(-1))


def wrapped(values: Array) -> Array:
    """int64 modulo 2^32 as int32, which is what accumulators do."""
    return np.ascontiguousarray(values.astype(np.uint64).astype(np.uint32).view(np.int32))


def channel_sums(weights: Array) -> Array:
    """sum of centred weights for each output channel: int64 [groups * outer]."""
    return np.asarray(weights.reshape(weights.shape[0] * weights.shape[1], -1).sum(axis=1))
