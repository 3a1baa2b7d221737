"""Products with a long depth and few tiles: blocks add up shares of the depth, a second kernel the shares.

    blocks of (share, tile)            workspace[share, row, column] = sums over the steps of a share
    a thread for four columns of a row      the sum over all shares, and the epilogue

Sums modulo 2^32 are the same in any order, and here the order is one. The workspace is TVM's own: it is
allocated by the function that launches both kernels, from a pool that keeps it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Kernel, between_launches, prim_func, tb
from tvm_qat.kernels.cuda.places import begun, pixels, store_columns
from tvm_qat.kernels.cuda.sums import SumsPlan
from tvm_qat.kernels.cuda.template_calls import add_call
from tvm_qat.kernels.cuda.threads import one_for_each
from tvm_qat.kernels.cuda.tiles import Tile, choose_shares
from tvm_qat.kernels.loops import decode, product

_tir = tvm.tirx


@dataclass(frozen=True)
class Shares:
    """count : of shares. steps : of the template in each, but in the last, which may have fewer."""

    count: int
    steps: int


def shares_of(plan: SumsPlan, tile: Tile, depth: Any) -> Shares:
    """One share where sizes or weights are not known before the kernel runs."""
    rows, columns = product(pixels(plan)), plan.spec.outer
    if plan.weights is None or not all(isinstance(size, int) for size in (rows, columns, depth)):
        return Shares(1, 0)
    return Shares(*choose_shares(tile, rows, columns, depth))


def build_in_shares(plan: SumsPlan, tile: Tile, shares: Shares) -> Kernel:
    rows, columns = product(pixels(plan)), plan.spec.outer
    down, across = tile.blocks(rows, columns)
    size = shares.count, down * tile.rows, across * tile.columns

    def body(buffers: dict[str, Any], out: Any) -> None:
        # By address only: what is loaded by index, TVM would take for all that is used of it.
        sums = between_launches((math.prod(size),), "int32", "sums")
        with tb.launch_thread("blockIdx.x", shares.count * down * across) as block:
            with tb.launch_thread("threadIdx.x", tile.threads):
                share, row, column = (tb.Bind(x) for x in decode(block, (shares.count, down, across)))
                first = tb.Bind(row * tile.rows), tb.Bind(column * tile.columns)
                shared = tb.alloc_buffer((tile.words,), "int32", scope="shared.dyn", layout=None)
                own = (share * size[1] + first[0]) * size[2] + first[1]
                more = (sums.data, own, ex.int32(size[2]), share, ex.int32(shares.steps))
                zero = ex.int32(0)
                tb.evaluate(add_call(plan, tile, buffers, shared, zero, first, more, "_share"))
        with one_for_each(rows * -(-columns // 4)) as i:
            m, four = (tb.Bind(x) for x in decode(i, (rows, -(-columns // 4))))
            channel = tb.Bind(four * 4)
            total = tb.alloc_buffer((4,), "int32", scope="local", layout=None)
            add = f"qat_add_shares<{shares.count}, {size[1] * size[2]}>"
            tb.evaluate(_tir.call_extern("int32", add, total.data, sums.data, m * size[2] + channel))
            store_columns(
                plan, buffers, out, (zero, m, channel),
                lambda e: begun(plan, buffers, channel + e, total[e]),
            )  # fmt: skip

    return prim_func(plan.fused.name, plan.symbols, plan.operands, plan.fused.shape, plan.fused.dtype, body)
