"""Brings near what will be read: the weights of the next block, and the residuals of a tile.

A block's weights are read once from far away and then by each of its tiles. What the processor fetches
by itself follows too closely: with few tiles a block the sums wait for it. So every turn of a tile's
inner loop asks for a line or two of the block that comes next, and the tiles of a block ask for all of
it, each for its share. What the epilogue reads for each output is asked for before a tile's sums.

A prefetch never fails, so places behind the end of a tensor need no care.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import plain, plain_shape, product
from tvm_qat.kernels.operands import is_one

_tir = tvm.tirx
_LINE = 64
"""Bytes that are fetched at once."""
_FEWEST = 64
"""Lines of a block that are worth it."""
_PIXELS = 1024
"""Outputs of a block, at most: with more of them, each line serves so many sums that fetching is nothing."""
_READ, _NEAREST, _DATA = 0, 3, 1
"""Operands of llvm.prefetch: for reading, into the nearest cache, data."""


@dataclass(frozen=True)
class NextBlock:
    """The weights of a block of channels, of which each tile asks for a share.

    weights : [blocks, ...], see `packing.pack_dot`. pixels : of a block, over which its `lines` are
    spread. again : the first block follows the last one, for the next element of a batch.
    """

    weights: Any
    pixels: int
    lines: int
    again: bool = False

    def fetch(self, block: PrimExpr, tile: tuple[PrimExpr, int], turn: tuple[PrimExpr, int]) -> None:
        """A turn's share of the block behind `block`; of the last block itself, where none follows.

        tile : (first pixel, pixels). turn : (which, of how many).
        """
        blocks = plain(self.weights.shape[0])
        behind = _tir.floormod(block + 1, blocks) if self.again else _tir.min(block + 1, blocks - 1)
        first, count = self.share(*tile, *turn)
        step = 8 * _LINE // _bits(self.weights)
        inner = [0] * (len(self.weights.shape) - 2)
        for i in range(count):
            _fetch(self.weights, (behind, *inner, (first + i) * step))

    def share(self, first: PrimExpr, pixels: int, turn: PrimExpr, turns: int) -> tuple[PrimExpr, int]:
        """(first line, lines) of a turn, in a tile that begins at pixel `first`.

        Turns that are too many for the tile's lines go on into those of the next tiles.
        """
        each = -(-pixels * self.lines // (self.pixels * turns))
        return first * self.lines // self.pixels + turn * each, each


def next_block(
    isa: DotProduct, spec: LinearSpec, weights: Any, tile: int, blocks_first: bool
) -> NextBlock | None:
    """None where it would not pay, or nothing follows.

    tile : pixels of a tile. blocks_first : a block is done with all of the batch before the next one.
    """
    blocks, *sizes = plain_shape(weights)
    pixels, lines = product([axis.out for axis in spec.axes]), product(sizes) * _bits(weights) // (8 * _LINE)
    again = not is_one(spec.batch) and not blocks_first
    if blocks_first:
        pixels = pixels * spec.batch
    if not isa.prefetches or lines < _FEWEST or (blocks == 1 and not again):
        return None
    known = isinstance(pixels, int) and tile < pixels <= _PIXELS
    return NextBlock(weights, pixels, lines, again) if known else None


def fetch_channels(buffer: Any, place: Sequence[PrimExpr], count: int) -> None:
    """`count` elements from `place` on, of which the last index counts neighbours."""
    *outer, first = place
    for i in range(0, count, 8 * _LINE // _bits(buffer)):
        _fetch(buffer, (*outer, first + i))


def _fetch(buffer: Any, place: Sequence[PrimExpr]) -> None:
    """The line in which an element lies."""
    hints = [ex.int32(hint) for hint in (_READ, _NEAREST, _DATA)]
    line = _tir.address_of(buffer[tuple(place)])
    tb.evaluate(_tir.call_llvm_intrin("void", "llvm.prefetch", line, *hints))


def _bits(buffer: Any) -> int:
    return int(tvm.DataType(str(buffer.dtype)).bits)
