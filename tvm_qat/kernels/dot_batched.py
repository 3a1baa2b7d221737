"""Products of two activations by dot-product instructions of four bytes: attention.

The right side is known at run time only, so it is packed when the kernel runs: four rows are
interleaved, column by column, into the order that the instruction reads. Its column sums come
from the same pass (a dot product with ones) and take the left side's zero point out of the loops:

    sum (x - zx) * y = sum x * y - zx * sum y
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import registers, tb, workspace
from tvm_qat.kernels.dot import DotBody
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.loops import loops, worth_threads
from tvm_qat.kernels.runs import step_starts, whole_loads

_tir = tvm.tirx
_ROWS = 4
_ONES = 0x01010101

Index = Callable[[PrimExpr, PrimExpr, PrimExpr], tuple[PrimExpr, ...]]
"""(batch element, row, column) -> index of the right side."""


@dataclass(frozen=True, kw_only=True)
class BatchedDotBody(DotBody):
    """weights, sums : from `RightSide.pack`. offset : the left side's zero point, as the loops see it."""

    sums: Any
    offset: PrimExpr

    def _start(self, n: PrimExpr, block: PrimExpr, lane: PrimExpr) -> PrimExpr:
        channels = self.blocking.channels
        total = self.sums[(n * self.blocks + block) * channels + lane]
        return ex.wrapping_subtract(self.initial(block * channels + lane), total * self.offset)


@dataclass(frozen=True)
class RightSide:
    """A batch of int8 matrices [inner, outer]. channels : columns of a block.

    by_columns : each column is contiguous in memory, not each row.
    """

    buffer: Any
    index: Index
    batch: Any
    inner: int
    outer: int
    channels: int
    isa: DotProduct
    by_columns: bool = False

    def pack(self) -> tuple[Any, Any]:
        """(int8 [batch * blocks, 1, 1, steps, channels * 4], int32 sums of columns).

        Rows that are read again at the end (see `runs`), and columns beyond the last, are zeros.
        """
        blocks, lanes = -(-self.outer // self.channels), self.isa.lanes
        steps = len(step_starts(self.isa, self.inner))
        packed = workspace((self.batch * blocks, 1, 1, steps, self.channels * _ROWS), "int8")
        sums = workspace((self.batch * blocks * self.channels,), "int32")
        with loops((self.batch, blocks), worth_threads((self.batch, self.inner, self.outer))) as (n, block):
            for first in range(0, self.channels, lanes):
                left = self.outer - (blocks - 1) * self.channels - first
                place = (n, block, n * blocks + block)
                self._either(packed, sums, place, first, min(max(left, 0), lanes), block < blocks - 1, blocks)
        return packed, sums

    def _either(
        self, packed: Any, sums: Any, place: tuple[PrimExpr, ...], first: int, left: int, inside: PrimExpr,
        blocks: int,
    ) -> None:  # fmt: skip
        """A vector of columns, of which the last block may have only `left`."""
        if left == self.isa.lanes or blocks == 1:
            self._vector(packed, sums, place, first, left)
            return
        with tb.If(inside):
            with tb.Then():
                self._vector(packed, sums, place, first, self.isa.lanes)
            with tb.Else():
                self._vector(packed, sums, place, first, left)

    def _vector(self, packed: Any, sums: Any, place: tuple[PrimExpr, ...], first: int, count: int) -> None:
        n, block, at = place
        lanes, column = self.isa.lanes, block * self.channels + first
        total = registers(lanes, "int32")
        tb.buffer_store(total, _tir.Broadcast(ex.int32(0), lanes), [_tir.Ramp(0, 1, lanes)])

        def target(index: PrimExpr) -> list[PrimExpr]:
            return [at, 0, 0, index, _tir.Ramp(first * _ROWS, 1, lanes * _ROWS)]

        def interleave(index: PrimExpr, row: PrimExpr, kept: int) -> None:
            rows = [row + k for k in range(_ROWS)]
            tb.buffer_store(packed, self._interleaved(n, rows, column, count, kept), target(index))

        def copy(index: PrimExpr, row: PrimExpr, kept: int) -> None:
            if count < lanes:
                tb.buffer_store(packed, _tir.Broadcast(_tir.IntImm("int8", 0), lanes * _ROWS), target(index))
            for lane in range(count):
                four = self._down(n, row, column + lane, kept)
                tb.buffer_store(packed, four, [at, 0, 0, index, _tir.Ramp((first + lane) * _ROWS, 1, _ROWS)])

        self._steps(copy if self.by_columns else interleave)
        with tb.serial(0, len(step_starts(self.isa, self.inner))) as i:
            ones = _tir.Broadcast(ex.int32(_ONES), lanes)
            values = packed.vload(target(i), f"int8x{lanes * _ROWS}")
            added = self.isa.dot(total.vload([0], f"int32x{lanes}"), ones, values)
            tb.buffer_store(total, added, [_tir.Ramp(0, 1, lanes)])
        tb.buffer_store(
            sums, total.vload([0], f"int32x{lanes}"), [_tir.Ramp(at * self.channels + first, 1, lanes)]
        )

    def _steps(self, step: Callable[[PrimExpr, PrimExpr, int], None]) -> None:
        """step(index, first row, rows that count: the last ones)."""
        starts = step_starts(self.isa, self.inner)
        whole = whole_loads(self.isa, self.inner) * self.isa.steps
        with tb.serial(0, whole) as i:
            step(i, i * _ROWS, _ROWS)
        for index in range(whole, len(starts)):
            first, kept = starts[index]
            step(ex.int32(index), ex.int32(first), kept)

    def _down(self, n: PrimExpr, row: PrimExpr, column: PrimExpr, kept: int) -> PrimExpr:
        """Four rows of a column that is contiguous; the last `kept` count."""
        four = self.buffer.vload(list(self.index(n, row, column)), f"int8x{_ROWS}")
        if kept == _ROWS:
            return four
        zeros = _tir.Broadcast(_tir.IntImm("int8", 0), _ROWS)
        return _tir.Shuffle(
            [zeros, four], [ex.int32(k if k < _ROWS - kept else _ROWS + k) for k in range(_ROWS)]
        )

    def _interleaved(
        self, n: PrimExpr, rows: list[PrimExpr], column: PrimExpr, count: int, kept: int
    ) -> PrimExpr:
        """Four rows of a vector of columns; the last `kept` rows and the first `count` columns count."""
        lanes = self.isa.lanes
        zeros = _tir.Broadcast(_tir.IntImm("int8", 0), lanes)
        vectors = [
            self._row(n, row, column, count) if k >= _ROWS - kept else zeros for k, row in enumerate(rows)
        ]
        order = [ex.int32(k * lanes + lane) for lane in range(lanes) for k in range(_ROWS)]
        return _tir.Shuffle(vectors, order)

    def _row(self, n: PrimExpr, row: PrimExpr, column: PrimExpr, count: int) -> PrimExpr:
        lanes = self.isa.lanes
        if count == lanes:
            return self.buffer.vload(list(self.index(n, row, column)), f"int8x{lanes}")
        part = registers(lanes, "int8")
        tb.buffer_store(part, _tir.Broadcast(_tir.IntImm("int8", 0), lanes), [_tir.Ramp(0, 1, lanes)])
        for lane in range(count):
            tb.buffer_store(part, self.buffer[self.index(n, row, column + lane)], [lane])
        return part.vload([0], f"int8x{lanes}")
