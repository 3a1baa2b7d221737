"""Epilogues that run inside the inner loop of the next tile.

Dot products keep two of the four vector units busy; converting and packing keep the other two. A
processor overlaps what stands within some 160 instructions, and a tile is longer than that. So a
tile leaves its sums in a small buffer, and the turns of the next tile's loop finish them:

    for each tile:
        for each turn:
            epilogue of the next pixels of the tile before
            acc[p,j] += ...
        sums = acc
    epilogue of the last tile

The epilogue stands before the products of a turn: behind them, LLVM keeps what they read in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels.blocking import Blocking
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.dot import DotBody
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Group, Registers
from tvm_qat.kernels.linear_spec import LinearSpec

_tir = tvm.tirx
_STRIP = 64
"""Tiles that follow each other; threads share strips."""
_NEAR = 1 << 15
"""Bytes of weights of a block."""
_SUMS = 256
"""Accumulators of a tile: as many as TVM keeps on the stack."""


def defers(spec: LinearSpec, blocking: Blocking, isa: DotProduct) -> bool:
    """Whether one tap does it all, in two turns of the inner loop at least; its weights stay in the
    nearest cache, for smaller tiles read them more often; and a pixel's block fills the packs."""
    taps = (*spec.kernel[:2], 1 if spec.merges_columns else spec.kernel[2])
    near = 2 * isa.unroll * isa.reach <= spec.run and spec.run * blocking.channels <= _NEAR
    packs = isa.defers and blocking.channels == 4 * isa.lanes
    return packs and near and taps == (1, 1, 1)


def deferred_blocking(blocking: Blocking) -> Blocking:
    """The same channels; registers are left for the epilogue, and the sums stay on the stack."""
    return replace(blocking, pixels=min(blocking.pixels, _SUMS // blocking.channels))


@dataclass(frozen=True)
class _Pixel:
    """A pixel of the sums of a tile, read like its accumulators."""

    sums: Any
    start: PrimExpr

    def __getitem__(self, lane: PrimExpr) -> PrimExpr:
        return self.sums[self.start + lane]


@dataclass(frozen=True, kw_only=True)
class DeferredDotBody(DotBody):
    """Only where `defers`, with `deferred_blocking`."""

    def _strips(self, tiles: Any) -> Any:
        return (tiles + (_STRIP - 1)) // _STRIP

    def _strip(self, group: Group, strip: PrimExpr, row: Coordinates, block: PrimExpr) -> None:
        size, count, start = group
        first = strip * _STRIP
        many = min(_STRIP, count) if isinstance(strip, int) else _tir.min(_STRIP, count - first)
        sums = registers(size * self.blocking.channels, "int32")

        def origin(tile: PrimExpr) -> Coordinates:
            return (*row, start + (first + tile) * size)

        with tb.serial(0, many) as tile:
            acc = self._accumulators(size, origin(tile), block)

            def meanwhile(turn: PrimExpr, turns: int) -> None:
                done, stop = turn * size // turns, (turn + 1) * size // turns
                with tb.If(tile > 0), tb.Then():
                    self._finish_pixels(sums, done, stop - done, origin(tile - 1), block)

            self._add_products(acc, size, origin(tile), block, meanwhile)
            self._keep(sums, acc)
        self._finish_pixels(sums, 0, size, origin(many - 1), block)

    def _finish_pixels(
        self, sums: Any, first: PrimExpr, count: PrimExpr, origin: Coordinates, block: PrimExpr
    ) -> None:
        """The epilogue of some pixels of a tile."""
        *row, column = origin
        with tb.serial(0, count) as i:
            pixel = _Pixel(sums, (first + i) * self.blocking.channels)
            self._finish_block([pixel], 1, (*row, column + first + i), block)

    def _keep(self, sums: Any, acc: Registers) -> None:
        lanes, channels = self.isa.lanes, self.blocking.channels
        for p, one in enumerate(acc):
            for lane in range(0, channels, lanes):
                place = _tir.Ramp(p * channels + lane, 1, lanes)
                tb.buffer_store(sums, one.vload([lane], f"int32x{lanes}"), [place])
