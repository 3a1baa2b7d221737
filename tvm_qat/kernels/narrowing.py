"""Four vectors of sums at once, through the epilogue, to bytes by an instruction set's saturating packs."""

from __future__ import annotations

from typing import Any

from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Sink
from tvm_qat.kernels.terms import Saturated, Term


def can_pack(isa: DotProduct, term: Term) -> bool:
    """Whether the results are bytes that the packs give."""
    return isa.narrow is not None and isinstance(term, Saturated) and term.fits_bytes


def packed(isa: DotProduct, sink: Sink, acc: Any, first: int, place: Coordinates) -> PrimExpr:
    """Accumulators from `first` on -> one vector of bytes; `place` is that of the first in the output."""
    term = sink.term
    assert isa.narrow is not None and isinstance(term, Saturated)
    group = 4 * isa.lanes
    whole = registers(group, "int32")
    for i in range(0, group, isa.lanes):
        with tb.vectorized(0, isa.lanes) as lane:
            channel = (*place[:4], place[4] + i + lane)
            tb.buffer_store(whole, sink.whole(channel, acc[first + i + lane]), [i + lane])
    parts = [whole.vload([i], f"int32x{isa.lanes}") for i in range(0, group, isa.lanes)]
    return term.clamped(isa.narrow(parts, term.zero_point, term.dtype), group)
