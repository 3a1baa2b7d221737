"""Vectors of sums through the epilogue to bytes, by an instruction set's saturating packs: four at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Sink
from tvm_qat.kernels.terms import Saturated, Term


@dataclass(frozen=True)
class Sums:
    """A vector of accumulators, or its first `count` lanes.

    acc[first + lane] are sums; `place` is that of the first in the output. pixel : of the tile.
    """

    acc: Any
    first: int
    count: int
    place: Coordinates
    pixel: int = 0


def can_pack(isa: DotProduct, term: Term) -> bool:
    """Whether the results are bytes that the packs give."""
    return isa.narrow is not None and isinstance(term, Saturated) and term.fits_bytes


def packed(isa: DotProduct, sink: Sink, vectors: Sequence[Sums]) -> PrimExpr:
    """Up to four vectors -> one vector of bytes, as many for each."""
    lanes = isa.lanes
    assert isa.narrow is not None
    parts = []
    for one in vectors:
        whole = registers(lanes, "int32")
        with tb.vectorized(0, one.count) as lane:
            channel = (*one.place[:4], one.place[4] + lane)
            tb.buffer_store(whole, sink.whole(channel, one.acc[one.first + lane]), [lane])
        parts.append(whole.vload([0], f"int32x{lanes}"))
    parts += parts[-1:] * (4 - len(parts))
    return sink.narrowed(parts, isa.narrow, 4 * lanes)


def store_packed(isa: DotProduct, sink: Sink, vectors: Sequence[Sums], dense: bool) -> None:
    """Up to four vectors to their places. dense : a pixel's channels are followed by the next pixel's."""
    size, dtype = 4 * isa.lanes, str(sink.output.dtype)
    done = registers(size, dtype)
    tb.buffer_store(done, packed(isa, sink, vectors), [tvm.tirx.Ramp(0, 1, size)])
    for start, count in _runs(isa, vectors, dense):
        *outer, channel = vectors[start // isa.lanes].place
        for at, length in _powers(start, count):
            part = done.vload([at], f"{dtype}x{length}") if length > 1 else done[at]
            sink.store_vector((*outer, channel + at - start), part, length)


def _runs(isa: DotProduct, vectors: Sequence[Sums], dense: bool) -> Iterator[tuple[int, int]]:
    """(start, count) of bytes that lie side by side in the output."""
    start = count = 0
    for i, one in enumerate(vectors):
        last = vectors[i - 1]
        if i and last.count == isa.lanes and (dense or one.pixel == last.pixel):
            count += one.count
            continue
        if count:
            yield start, count
        start, count = i * isa.lanes, one.count
    yield start, count


def _powers(start: int, count: int) -> Iterator[tuple[int, int]]:
    """`count` bytes from `start` on as vectors whose lengths are powers of two, the longest first."""
    while count:
        length = 1 << (count.bit_length() - 1)
        yield start, length
        start, count = start + length, count - length
