"""The order in which depthwise kernels hold channels: blocks, positions, packed weights.

A block is four vectors of accumulators. Instructions that interleave bytes, and those that pack
them again, work within 128 bits. Two interleavings of four columns of a vector of bytes leave, in
vector q, of each chunk of 16 channels those from 4 q on:

    vector q, lane l  =  chunk l / 4, channel 4 q + l % 4

Packing undoes this order. So it costs nothing, if bias, scales and weights are stored in it.

A block has as many chunks as 128-bit parts in a vector. Where fewer channels are left, the chunks
of a block are the same channels at several pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.qnn.arithmetic import Array

COLUMNS = 4
CHUNK = 16


@dataclass(frozen=True)
class Block:
    """position : of its first accumulator. channel : its first. channels : how many, whole chunks."""

    position: Any
    channel: Any
    channels: int


def channel_blocks(channels: int, isa: DotProduct) -> tuple[int, list[Block]]:
    """How many full blocks there are, and the blocks of the rest.

    The last block ends with the last channel, and may repeat some before it. There must be at least
    CHUNK channels.
    """
    size = 4 * isa.lanes
    full, left = divmod(channels, size)
    rest: list[Block] = []
    width = max(size // 2, CHUNK)
    while left > 0:
        if left >= width or width == CHUNK:
            first = min(channels - left, channels - width)
            rest.append(Block((full + len(rest)) * size, first, width))
            left -= width
        else:
            width //= 2
    return full, rest


def place_in_block(position: int, block: Block, isa: DotProduct) -> tuple[int, int]:
    """(group of pixels, channel after the first) of an accumulator of a block."""
    vector, lane = divmod(position, isa.lanes)
    return divmod(lane // 4 * CHUNK + 4 * vector + lane % 4, block.channels)


def channels_in_order(channels: int, isa: DotProduct) -> Array:
    """The channel at each position."""
    full, rest = channel_blocks(channels, isa)
    size = 4 * isa.lanes
    blocks = [Block(i * size, i * size, size) for i in range(full)] + rest
    return np.array(
        [block.channel + place_in_block(i, block, isa)[1] for block in blocks for i in range(size)]
    )


def outputs_of_window(spec: LinearSpec) -> int:
    """Neighbouring outputs that four columns serve; 1 where windows do not overlap that way."""
    width = spec.axes[2]
    dense = width.stride == 1 and width.dilation == 1 and width.kernel <= COLUMNS
    return COLUMNS - width.kernel + 1 if dense else 1


def pack_dot_depthwise(spec: LinearSpec, weights: Array, isa: DotProduct) -> Array:
    """[channels, 1, D, H, W, 1] -> int8 [D, H, variants, positions * 4].

    A variant is the kernel's columns moved by 0, 1, ... within a window, or one group of four
    columns after the other where a window serves one output.
    """
    taps = np.moveaxis(weights[:, 0, ..., 0], 0, -1)  # [D, H, W, channels]
    depth, height, width, channels = taps.shape
    outputs = outputs_of_window(spec)
    variants = outputs if outputs > 1 else -(-width // COLUMNS)
    packed = np.zeros((depth, height, variants, channels, COLUMNS), np.int8)
    for variant in range(variants):
        for column in range(width):
            place = column + variant if outputs > 1 else column - variant * COLUMNS
            if 0 <= place < COLUMNS:
                packed[:, :, variant, :, place] = taps[:, :, column]
    ordered = packed[..., channels_in_order(channels, isa), :]
    return ordered.reshape(depth, height, variants, -1)
