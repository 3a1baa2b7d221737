"""Rows for the operators of `kernels.rows` and `kernels.softmax`: a warp each, element i in lane i % 32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.cuda.threads import WARP, ceil_div
from tvm_qat.kernels.expressions import PrimExpr, float32
from tvm_qat.kernels.loops import decode, product
from tvm_qat.kernels.rows import LANES, Each, Row, Values, add, scalar
from tvm_qat.kernels.softmax import Place, Profile, RowOf

_tir = tvm.tirx

_MOST_KEPT = 32
"""Values of a lane that are kept in registers; those of longer rows are computed anew."""

_ROWS_OF_BLOCK = 4


@dataclass(frozen=True)
class RowOfWarp:
    """One row, of which this thread works on every 32nd element."""

    length: int
    lane: PrimExpr

    @property
    def _short(self) -> bool:
        return -(-self.length // WARP) <= _MOST_KEPT

    def each(self, step: Callable[[PrimExpr], None]) -> None:
        whole, rest = divmod(self.length, WARP)
        if self._short:
            for i in range(whole):
                step(self.lane + i * WARP)
        else:
            with tb.serial(0, whole) as i:
                step(self.lane + i * WARP)
        if rest:
            with tb.If(self.lane < rest), tb.Then():
                step(self.lane + whole * WARP)

    def keep(self, values: Values) -> Values:
        if not self._short:
            return values
        memory = tb.alloc_buffer((-(-self.length // WARP),), "float32", scope="local", layout=None)
        self.each(lambda i: tb.buffer_store(memory, values(i), [i // WARP]))
        return lambda i: memory[i // WARP]

    def fold(
        self, values: Values, combine: Callable[[PrimExpr, PrimExpr], PrimExpr], first: float,
        dtype: str = "float32",
    ) -> PrimExpr:  # fmt: skip
        acc = tb.alloc_buffer((1,), dtype, scope="local", layout=None)
        tb.buffer_store(acc, _tir.const(first, dtype), [0])
        self.each(lambda i: tb.buffer_store(acc, combine(acc[0], values(i)), [0]))
        helper = "qat_sum_of_warp" if combine is add else "qat_greatest_of_warp"
        return scalar(_tir.call_extern(dtype, helper, acc[0]))

    def mean(self, values: Values) -> PrimExpr:
        return scalar(self.fold(values, add, 0.0) / float32(float(self.length)))


@contextmanager
def each_row(
    outer: list[Any], length: int, _kept: int, _target: Any
) -> Iterator[tuple[tuple[PrimExpr, ...], Row, Each]]:
    """A warp for each row."""
    assert LANES == WARP, "the order of sums is that of a warp's lanes"
    with _warps(outer, length) as (at, row):
        yield at, row, row.each


@contextmanager
def rows_of_softmax(others: list[Any], length: int) -> Iterator[tuple[tuple[PrimExpr, ...], RowOf]]:
    with _warps(others, length) as (at, row):
        yield at, partial(_softmax, row)


@contextmanager
def _warps(outer: list[Any], length: int) -> Iterator[tuple[tuple[PrimExpr, ...], RowOfWarp]]:
    total = product(outer)
    with tb.launch_thread("blockIdx.x", ceil_div(total, _ROWS_OF_BLOCK)) as block:
        with tb.launch_thread("threadIdx.x", _ROWS_OF_BLOCK * WARP) as thread:
            number = tb.Bind(block * _ROWS_OF_BLOCK + thread // WARP)
            row = RowOfWarp(length, tb.Bind(thread % WARP))
            with tb.If(number < total), tb.Then():
                yield decode(number, outer), row


def _softmax(
    row: RowOfWarp, profile: Profile, place: Place, _length: int, data: Any, table: Any,
    finish: Callable[[tuple[PrimExpr, ...], PrimExpr], None],
) -> None:  # fmt: skip
    """Powers are looked up twice instead of being kept."""
    greatest = row.fold(lambda i: ex.cast(data[place(i)], "int32"), _tir.max, -(2**31), "int32")

    def power(i: PrimExpr) -> PrimExpr:
        return table[greatest - ex.cast(data[place(i)], "int32")]

    share = profile.shares(row.fold(lambda i: profile.addend(power(i)), add, 0, "int32"))
    row.each(lambda i: finish(place(i), share(power(i))))
