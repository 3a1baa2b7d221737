"""Calls of the C++ templates that add up products: what they are given, and how a tile's sums come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels.cuda.operand_rows import left_rows, right_rows
from tvm_qat.kernels.cuda.places import pixels
from tvm_qat.kernels.cuda.sums import SumsPlan
from tvm_qat.kernels.cuda.tiles import Tile
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.linear_places import matrix_place
from tvm_qat.kernels.loops import product

_tir = tvm.tirx

TYPES = {"int8": "signed char", "uint8": "unsigned char"}
"""Of bytes, in C++."""


def add_call(
    plan: SumsPlan, tile: Tile, buffers: dict[str, Any], shared: Any, n: PrimExpr,
    first: tuple[PrimExpr, PrimExpr], before: Sequence[PrimExpr] = (), suffix: str = "",
) -> PrimExpr:  # fmt: skip
    """All products of the tile at `first` of batch element n. before, suffix : what a template of another
    name takes besides."""
    types = TYPES[plan.data.dtype], TYPES["int8" if plan.weights is not None else plan.weight.dtype]
    rows = left_rows(plan, product(pixels(plan))), right_rows(plan, plan.spec.outer)
    name = f"{tile.template}{suffix}<{tile.text}, {', '.join(types)}, {_flags(plan)}>"
    return _tir.call_extern("int32", name, *before, shared.data, *_starts(plan, buffers, n), *first, *rows)


def leave_call(plan: SumsPlan, tile: Tile, shared: Any, held: Any, part: PrimExpr) -> PrimExpr:
    """One part of sums that were held in registers."""
    name = f"qat_leave<{tile.text}, {_flags(plan)}>"
    return _tir.call_extern("int32", name, shared.data, held.data, part)


def _flags(plan: SumsPlan) -> str:
    """Whether the sums of the columns of the right matrix and of the rows of the left one are wanted."""
    sums = plan.weights is None and plan.zero is not None, plan.kernel_zero is not None
    return ", ".join(str(flag).lower() for flag in sums)


def _starts(plan: SumsPlan, buffers: dict[str, Any], n: PrimExpr) -> tuple[PrimExpr, PrimExpr]:
    """Addresses of the two matrices of a batch element."""
    data, weight = buffers[plan.data.name], buffers[plan.weight.name]
    if not plan.lead:
        return data.data, weight.data
    left, right = (
        matrix_place(plan.fused, plan.lead, side, buffer, n, (0, 0))
        for side, buffer in enumerate((data, weight))
    )
    return _tir.address_of(data[left]), _tir.address_of(weight[right])
