"""From what a thread works on to places in the real tensors, and the store of finished sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.cuda.sums import SumsPlan
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.loops import decode
from tvm_qat.kernels.operands import Site

_tir = tvm.tirx

Place = tuple[PrimExpr, ...]


def pixels(plan: SumsPlan) -> list[Any]:
    """Axes of the output whose product is the number of rows of the sums: without channels and batch."""
    if "conv" in plan.fused.op:
        return [plan.spec.batch, *(axis.out for axis in plan.spec.axes)]
    return list(plan.symbols.shape(plan.fused.shape))[len(plan.lead) : -1]


def output_place(plan: SumsPlan, batch: PrimExpr, row: PrimExpr, channel: PrimExpr) -> Place:
    """Where the sum of a row and a channel goes."""
    at = decode(row, pixels(plan))
    if "conv" in plan.fused.op:
        return tuple((*at, channel)["NDHWC".index(letter)] for letter in plan.spec.data_layout)
    return (*decode(batch, plan.lead), *at, channel)


def store_sum(plan: SumsPlan, buffers: dict[str, Any], out: Any, place: Place, total: PrimExpr) -> None:
    tb.buffer_store(out, finished(plan, buffers, place, total), list(place))


def finished(plan: SumsPlan, buffers: dict[str, Any], place: Place, total: PrimExpr) -> PrimExpr:
    """The result that the epilogue makes of a sum."""
    return plan.term(Site(buffers, place, total))


def begun(plan: SumsPlan, buffers: dict[str, Any], channel: PrimExpr, total: PrimExpr) -> PrimExpr:
    """A sum of products with its bias, and with what the zero point of the data takes away."""
    return ex.wrapping_add(total, ex.cast(plan.initial(Site(buffers, (channel,))), "int32"))


def store_four(
    plan: SumsPlan, buffers: dict[str, Any], out: Any, places: Sequence[Place], totals: Sequence[PrimExpr]
) -> None:
    """Four neighbouring channels: bytes at once, else one by one."""
    values = [finished(plan, buffers, place, total) for place, total in zip(places, totals, strict=True)]
    if str(out.dtype) in ("int8", "uint8"):
        bytes_ = [ex.cast(value, "int32") for value in values]
        tb.evaluate(_tir.call_extern("int32", "qat_store4", _tir.address_of(out[places[0]]), *bytes_))
        return
    for place, value in zip(places, values, strict=True):
        tb.buffer_store(out, value, list(place))


def store_columns(
    plan: SumsPlan, buffers: dict[str, Any], out: Any, first: tuple[PrimExpr, PrimExpr, PrimExpr],
    total: Callable[[int], PrimExpr],
) -> None:  # fmt: skip
    """Four neighbouring channels from (batch, row, channel) on, those of them that there are."""
    n, m, channel = first
    columns = plan.spec.groups * plan.spec.outer
    if isinstance(columns, int) and columns % 4 == 0:
        places = [output_place(plan, n, m, channel + e) for e in range(4)]
        store_four(plan, buffers, out, places, [total(e) for e in range(4)])
        return
    for e in range(4):
        with tb.If(channel + e < columns), tb.Then():
            store_sum(plan, buffers, out, output_place(plan, n, m, channel + e), total(e))
