"""Sums of products by instructions that multiply matrices: two pixels by two channels at once.

A vector of accumulators holds both channels of one pixel, then of the next. So the pixels of a tile
are taken in pairs, and their sums put together before the loops and taken apart after them:

    pixel p      c0 c1 c2 c3          pair      p.c0 p.c1 q.c0 q.c1
    pixel q      c0 c1 c2 c3                    p.c2 p.c3 q.c2 q.c3

Where the pixels are odd in number, the last one is added up twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.dot import DotBody, Meanwhile
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.linear import Coordinates, Registers

_tir = tvm.tirx
_LANES = 4


@dataclass(frozen=True, kw_only=True)
class PairedDotBody(DotBody):
    """For instruction sets with `pixels` = 2 and vectors of four sums."""

    def _add_products(
        self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr,
        meanwhile: Meanwhile | None = None,
    ) -> None:  # fmt: skip
        channels = self.blocking.channels
        pairs = [registers(2 * channels, "int32") for _ in range(0, pixels, 2)]
        for i, pair in enumerate(pairs):
            self._zip(_both(acc, i), pair)
        super()._add_products(pairs, pixels, origin, block, meanwhile)
        for i, pair in enumerate(pairs):
            self._unzip(pair, _both(acc, i)[: pixels - 2 * i])

    def _activations(
        self, row: Coordinates, columns: Coordinates, offset: PrimExpr, count: int
    ) -> list[list[PrimExpr]]:
        loads = [self.source.vector((*row, column, offset), count) for column in columns]
        return [self.isa.spread(_both(loads, i), _LANES) for i in range(-(-len(loads) // 2))]

    def _zip(self, acc: Registers, pair: Any) -> None:
        for first in range(0, self.blocking.channels, _LANES):
            p, q = (_twos(one, first) for one in acc)
            for half in range(2):
                _store(
                    pair,
                    2 * first + half * _LANES,
                    _tir.Shuffle([p, q], [ex.int32(half), ex.int32(2 + half)]),
                )

    def _unzip(self, pair: Any, acc: Registers) -> None:
        for first in range(0, self.blocking.channels, _LANES):
            twos = [_twos(pair, 2 * first + half * _LANES) for half in range(2)]
            for which, one in enumerate(acc):
                _store(one, first, _tir.Shuffle(twos, [ex.int32(which), ex.int32(2 + which)]))


def _both(of: Sequence[Any], pair: int) -> list[Any]:
    """The pixels of a pair; the last one twice, if it is alone."""
    return [of[2 * pair], of[min(2 * pair + 1, len(of) - 1)]]


def _twos(buffer: Any, first: int) -> PrimExpr:
    return _tir.reinterpret("int64x2", buffer.vload([first], f"int32x{_LANES}"))


def _store(buffer: Any, first: int, twos: PrimExpr) -> None:
    tb.buffer_store(buffer, _tir.reinterpret(f"int32x{_LANES}", twos), [_tir.Ramp(first, 1, _LANES)])
