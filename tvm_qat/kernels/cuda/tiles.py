"""How a block of threads shares a product's sums: the templates of `device/`, and which serves what size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm_qat.kernels.cuda.threads import ceil_div

_DEPTH = 64
_WARPS, _LEAST_DEPTH = 8, 512
_TENSOR_CORES, _DOTS = 108, 40
"""Multiprocessors of a GPU with and without the instruction (A100, T4): with fewer blocks some are idle."""


@dataclass(frozen=True)
class Tile:
    """Sums of one block of threads, and their way to the epilogue through shared memory.

    words : int32 of shared memory. line : int32 between rows of sums there. parts : turns in which
    they go through it, an equal share of the rows each. held : int32 of registers in which a thread
    keeps sums until their turn; 0 where the template leaves them all in shared memory by itself.
    template, text : the C++ function and its type of tile. step : elements of the depth at once; 0
    where no template adds up a share of the steps.
    """

    rows: int
    columns: int
    threads: int
    words: int
    line: int
    template: str
    text: str
    parts: int = 1
    held: int = 0
    step: int = 0

    def blocks(self, rows: Any, columns: Any) -> tuple[Any, Any]:
        return ceil_div(rows, self.rows), ceil_div(columns, self.columns)


def mma_tile(rows: int, columns: int, warps: tuple[int, int], stages: int = 4) -> Tile:
    """Tensor cores. stages : of the ring of copies, whose memory the sums take over in the end."""
    line = columns + 8  # no two of the rows of a store share a bank
    ring = stages * (rows + columns) * _DEPTH // 4
    words = max(ring, rows * line + rows + columns)
    text = f"QatTile<{rows}, {columns}, {warps[0]}, {warps[1]}, {stages}>"
    return Tile(rows, columns, 32 * math.prod(warps), words, line, "qat_product", text, step=_DEPTH)


def dot_tile(down: int, across: int) -> Tile:
    """dp4a: warps of 32 x 64 sums, 8 x 8 a thread; a row of warps is a part."""
    rows, columns = 32 * down, 64 * across
    line = columns + 4
    ring = 2 * 8 * (rows + 4 + columns + 4)
    words = max(ring, 32 * line + columns + 32)
    text = f"QatDotTile<{down}, {across}>"
    return Tile(
        rows, columns, 32 * down * across, words, line, "qat_dots", text, parts=down, held=80, step=32
    )


def thin_tile(rows: int, each: int, lanes: int, split: int) -> Tile:
    """dp4a for few rows: `lanes` of a warp along the depth, `each` columns a lane, warps / split of them."""
    across = _WARPS // split
    columns = each * (32 // lanes) * across
    words = split * (rows * columns + columns + rows)
    text = f"QatThinTile<{rows}, {each}, {lanes}, {across}, {split}>"
    return Tile(rows, columns, 32 * _WARPS, words, columns, "qat_thin", text)


WIDE, TALL, SMALL = mma_tile(128, 128, (2, 2)), mma_tile(128, 64, (4, 1)), mma_tile(64, 64, (2, 2))
DOT_WIDE, DOT_TALL, DOT_SMALL = dot_tile(4, 2), dot_tile(4, 1), dot_tile(2, 1)


def choose_tile(rows: int, columns: int, _depth: int, batch: int) -> Tile:
    """The largest tile for tensor cores that gives every multiprocessor something to do."""
    tile = WIDE if columns > TALL.columns else TALL
    return tile if batch * math.prod(tile.blocks(rows, columns)) >= _TENSOR_CORES else SMALL


def choose_dot_tile(rows: int, columns: int, _depth: int, batch: int) -> Tile:
    """The same for dp4a."""
    tile = DOT_WIDE if columns > DOT_TALL.columns else DOT_TALL
    return tile if batch * math.prod(tile.blocks(rows, columns)) >= _DOTS else DOT_SMALL


def choose_shares(tile: Tile, rows: int, columns: int, depth: int) -> tuple[int, int]:
    """In how many shares blocks add up the depth, and the steps of one: until all multiprocessors work.

    A share has 512 elements or more, for tensor cores twice their ring: by arithmetic, what a block
    takes to begin, its sums on their way through memory and the second kernel cost more below that.
    """
    steps, blocks = -(-depth // tile.step), math.prod(tile.blocks(rows, columns))
    most = (_DOTS if tile.held else _TENSOR_CORES) // blocks
    each = -(-steps // max(1, min(most, depth // _LEAST_DEPTH)))
    return -(-steps // each), each


FEW = 8
"""Rows up to which weights are read once by `thin_tile`; the least tile for tensor cores has 64."""


def choose_thin_tile(rows: int, columns: int, depth: int, batch: int) -> Tile:
    """Lanes along the depth as far as it reaches, then blocks for every multiprocessor.

    A lane that reads several columns reads the data once for them, but there are fewer warps. Where
    warps are still left over, they share the depth.
    """
    pieces = -(-depth // 16)
    lanes = min(32, 1 << (pieces - 1).bit_length())
    each, turns = 4 if 2 * rows <= FEW else 2, -(-pieces // lanes)
    while each > 1 and columns * batch < each * 32 // lanes * _TENSOR_CORES:
        each //= 2
    of_warp, split = each * 32 // lanes, 1
    while 2 * split <= min(_WARPS, turns, 2 * of_warp):  # and no tile is below four columns
        if -(-columns * split // (of_warp * _WARPS)) * batch >= 2 * _TENSOR_CORES:
            break
        split *= 2
    return thin_tile(rows, each, lanes, split)
