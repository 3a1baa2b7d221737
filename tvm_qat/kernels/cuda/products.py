"""Kernels around the templates of `device/`: products by tensor cores or dp4a, depthwise convolutions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tvm_qat.ir import is_const, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb
from tvm_qat.kernels.cuda.operand_rows import CHUNK, pixels_under_taps, right_follows
from tvm_qat.kernels.cuda.places import begun, pixels, store_columns
from tvm_qat.kernels.cuda.shares import build_in_shares, shares_of
from tvm_qat.kernels.cuda.sums import SumsPlan, plan_sums, suits_products
from tvm_qat.kernels.cuda.template_calls import TYPES, add_call, leave_call
from tvm_qat.kernels.cuda.threads import one_for_each
from tvm_qat.kernels.cuda.tiles import FEW, Tile, choose_dot_tile, choose_thin_tile, choose_tile
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear_plan import spec_of
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import decode, product, static_work
from tvm_qat.kernels.operands import Site
from tvm_qat.qnn.arithmetic import Array

_tir = tvm.tirx


def build_products(fused: Fused, _target: Any) -> Kernel:
    """A product of matrices or a convolution, by mma.sync."""
    return _build(fused, choose_tile)


def build_dot_products(fused: Fused, _target: Any) -> Kernel:
    """The same by dp4a."""
    return _build(fused, choose_dot_tile)


def build_thin_products(fused: Fused, _target: Any) -> Kernel:
    """The same for few rows."""
    return _build(fused, choose_thin_tile)


def suits_thin_products(fused: Fused) -> bool:
    """Few rows, and weights that follow one another along the depth."""
    if not suits_products(fused):
        return False
    symbols = Symbols()
    spec, lead = spec_of(fused, symbols)
    results = product(fused.shape)
    if not (isinstance(results, int) and isinstance(spec.inner, int)):
        return False
    packed = not lead and is_const(fused.anchor.args[1])
    return results <= FEW * spec.outer * product(lead) and (packed or right_follows(fused, symbols, spec))


def _build(fused: Fused, choose: Callable[[int, int, int, int], Tile]) -> Kernel:
    plan = plan_sums(fused, _by_rows)
    rows, columns, spec = product(pixels(plan)), plan.spec.outer, plan.spec
    batch, depth = product(plan.lead), product([*spec.kernel, spec.inner])
    known = (pixels(plan), [columns], [*spec.kernel, spec.inner], plan.lead)
    tile = choose(*map(static_work, known))  # sizes that are not known count as one
    if tile.step and (shares := shares_of(plan, tile, depth)).count > 1:
        return build_in_shares(plan, tile, shares)
    down, across = tile.blocks(rows, columns)

    def body(buffers: dict[str, Any], out: Any) -> None:
        with tb.launch_thread("blockIdx.x", batch * down * across) as block:
            with tb.launch_thread("threadIdx.x", tile.threads) as thread:
                n, row, column = (tb.Bind(x) for x in decode(block, (batch, down, across)))
                first = tb.Bind(row * tile.rows), tb.Bind(column * tile.columns)
                shared = tb.alloc_buffer((tile.words,), "int32", scope="shared.dyn", layout=None)
                with _parts(plan, tile, buffers, shared, n, first) as part:
                    _finish(plan, tile, buffers, out, shared, n, first, part, thread, (rows, columns))

    return prim_func(fused.name, plan.symbols, plan.operands, fused.shape, fused.dtype, body)


@contextmanager
def _parts(
    plan: SumsPlan, tile: Tile, buffers: dict[str, Any], shared: Any, n: PrimExpr,
    first: tuple[PrimExpr, PrimExpr],
) -> Iterator[PrimExpr]:  # fmt: skip
    """The sums of a tile, one part after the other in shared memory."""
    if not tile.held:
        tb.evaluate(add_call(plan, tile, buffers, shared, n, first))
        yield ex.int32(0)
        return
    held = tb.alloc_buffer((tile.held,), "int32", scope="local", layout=None)
    tb.evaluate(add_call(plan, tile, buffers, shared, n, first, (held.data,)))
    with tb.serial(0, tile.parts, unroll=False) as part:
        tb.evaluate(leave_call(plan, tile, shared, held, part))
        yield part


def _by_rows(_spec: LinearSpec, weights: Array) -> Array:
    """[1, outer, D, H, W, inner] -> int8 [outer, depth], with zeros up to a whole chunk."""
    rows = weights[0].reshape(weights.shape[1], -1)
    return np.ascontiguousarray(np.pad(rows, ((0, 0), (0, -rows.shape[1] % CHUNK)))).astype(np.int8)


def _finish(
    plan: SumsPlan, tile: Tile, buffers: dict[str, Any], out: Any, shared: Any, n: PrimExpr,
    first: tuple[PrimExpr, PrimExpr], part: PrimExpr, thread: PrimExpr, sizes: tuple[int, int],
) -> None:  # fmt: skip
    """The epilogue of a part, four neighbouring channels of a row for each thread and turn."""
    fours, height = tile.columns // 4, tile.rows // tile.parts
    with tb.serial(0, -(-height * fours // tile.threads), unroll=False) as turn:
        position = turn * tile.threads + thread
        row, column = tb.Bind(position // fours), tb.Bind(position % fours * 4)
        m, channel = tb.Bind(first[0] + part * height + row), tb.Bind(first[1] + column)

        def total(e: int) -> PrimExpr:
            value = _centred(plan, tile, buffers, shared, row, column + e)
            return begun(plan, buffers, channel + e, value)

        inside = [m < sizes[0], channel < sizes[1]]
        if height * fours % tile.threads:
            inside.append(row < height)
        with tb.If(_tir.all(*inside)), tb.Then():
            store_columns(plan, buffers, out, (n, m, channel), total)


def _centred(
    plan: SumsPlan, tile: Tile, buffers: dict[str, Any], shared: Any, row: PrimExpr, column: PrimExpr
) -> PrimExpr:
    """sum (x - zx) (w - zw) = sum x w - zx sum w - zw sum x + depth zx zw, for weights known at run time."""
    value, behind = shared[row * tile.line + column], tile.rows // tile.parts * tile.line
    if plan.weights is not None:
        return value
    site = Site(buffers, ())
    zero, kernel_zero = (z(site) if z else None for z in (plan.zero, plan.kernel_zero))
    if zero is not None:
        value = ex.wrapping_subtract(value, zero * shared[behind + column])
    if kernel_zero is not None:
        value = ex.wrapping_subtract(value, kernel_zero * shared[behind + tile.columns + row])
    if zero is not None and kernel_zero is not None:
        inner = plan.spec.inner
        depth = ex.int32(inner) if isinstance(inner, int) else inner
        value = ex.wrapping_add(value, zero * kernel_zero * depth)
    return value


def build_depthwise(fused: Fused, _target: Any) -> Kernel:
    """A thread for four channels of a pixel, by dp4a."""
    plan = plan_sums(fused, _by_four_taps)
    channels, taps = plan.spec.groups, math.prod(plan.spec.kernel)
    fours = -(-channels // 4)
    total = product(pixels(plan)) * fours
    helper = f"qat_depthwise<{channels}, {taps}, {TYPES[plan.data.dtype]}>"
    read = pixels_under_taps(plan)

    def body(buffers: dict[str, Any], out: Any) -> None:
        data, weight = buffers[plan.data.name], buffers[plan.weight.name]
        with one_for_each(total, 128) as i:
            m, channel = tb.Bind(i // fours), tb.Bind(i % fours * 4)
            acc = tb.alloc_buffer((4,), "int32", scope="local", layout=None)
            tb.evaluate(_tir.call_extern("int32", helper, acc.data, data.data, weight.data, m, channel, read))

            def sum_of(e: int) -> PrimExpr:
                return begun(plan, buffers, channel + e, acc[e])

            store_columns(plan, buffers, out, (ex.int32(0), m, channel), sum_of)

    return prim_func(fused.name, plan.symbols, plan.operands, fused.shape, fused.dtype, body)


def _by_four_taps(_spec: LinearSpec, weights: Array) -> Array:
    """[channels, 1, 1, H, W, 1] -> int32 [ceil(channels / 4), ceil(taps / 4), 4], four taps in a word."""
    taps = weights.reshape(weights.shape[0], -1)
    words = np.pad(taps, ((0, -taps.shape[0] % 4), (0, -taps.shape[1] % 4))).astype(np.int8)
    words = np.ascontiguousarray(words).view(np.int32)
    return np.ascontiguousarray(words.reshape(-1, 4, words.shape[1]).transpose(0, 2, 1))
