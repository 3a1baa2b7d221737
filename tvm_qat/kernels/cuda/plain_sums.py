"""The kernel of all other sums of products: one thread adds up one of them.

Groups, transposed convolutions, wide or asymmetric weights, layouts with channels first: everything
that `products` leaves, in 32-bit arithmetic that wraps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import packing
from tvm_qat.kernels.builder import Kernel, prim_func, tb
from tvm_qat.kernels.cuda.places import begun, output_place, pixels, store_sum
from tvm_qat.kernels.cuda.sums import SumsPlan, plan_sums
from tvm_qat.kernels.cuda.threads import one_for_each
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear_places import matrix_place, weight_place
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import decode, loops, product
from tvm_qat.kernels.operands import Site
from tvm_qat.qnn.arithmetic import Array

_tir = tvm.tirx


def build_plain_sums(fused: Fused, _target: Any) -> Kernel:
    plan = plan_sums(fused, _by_channel)
    channels = plan.spec.groups * plan.spec.outer
    sizes = (product(plan.lead), product(pixels(plan)), channels)

    def body(buffers: dict[str, Any], out: Any) -> None:
        with one_for_each(product(sizes)) as i:
            n, m, channel = (tb.Bind(x) for x in decode(i, sizes))
            acc = tb.alloc_buffer((1,), "int32", scope="local", layout=None)
            tb.buffer_store(acc, ex.int32(0), [0])
            (_add_pixels if "conv" in fused.op else _add_row)(plan, buffers, acc, n, m, channel)
            total = begun(plan, buffers, channel, acc[0])
            store_sum(plan, buffers, out, output_place(plan, n, m, channel), total)

    return prim_func(fused.name, plan.symbols, plan.operands, fused.shape, fused.dtype, body)


def _by_channel(spec: LinearSpec, weights: Array) -> Array:
    """Centred weights as [groups * outer, D, H, W, inner], in the narrowest dtype."""
    return packing.narrowest(np.ascontiguousarray(weights.reshape(-1, *spec.kernel, spec.inner)))


def _add_row(
    plan: SumsPlan, buffers: dict[str, Any], acc: Any, n: PrimExpr, m: PrimExpr, channel: PrimExpr
) -> None:
    data = buffers[plan.data.name]
    with loops((plan.spec.inner,)) as (i,):
        if plan.lead:
            x = data[matrix_place(plan.fused, plan.lead, 0, data, n, (m, i))]
        else:
            place = (*decode(m, data.shape[:-1]), i)
            x = data[place]
        _add(plan, buffers, acc, x, (n, channel), (0, 0, 0), i)


def _add_pixels(
    plan: SumsPlan, buffers: dict[str, Any], acc: Any, _n: PrimExpr, m: PrimExpr, channel: PrimExpr
) -> None:
    spec, data = plan.spec, buffers[plan.data.name]
    n, *pixel = decode(m, pixels(plan))
    with loops(spec.kernel) as tap, loops((spec.inner,)) as (i,):
        at = [
            p * axis.stride + t * axis.dilation - axis.before
            for p, t, axis in zip(pixel, tap, spec.axes, strict=True)
        ]
        inside = [
            condition
            for p, axis in zip(at, spec.axes, strict=True)
            if axis.needs_padding
            for condition in _inside(p, axis)
        ]
        real = [
            p if a.spread == 1 else _tir.floordiv(p, a.spread) for p, a in zip(at, spec.axes, strict=True)
        ]
        group = channel // spec.outer if spec.groups > 1 else 0
        place = (n, *real, group * spec.inner + i)
        x = data[tuple(place["NDHWC".index(letter)] for letter in spec.data_layout)]
        if inside:
            zero = plan.zero(Site(buffers, ())) if plan.zero else ex.int32(0)
            x = _tir.if_then_else(_tir.all(*inside), ex.cast(x, "int32"), ex.cast(zero, "int32"))
        _add(plan, buffers, acc, x, (0, channel), tap, i)


def _inside(p: PrimExpr, axis: Any) -> list[PrimExpr]:
    found = [p >= 0, p < (axis.size - 1) * axis.spread + 1]
    return found if axis.spread == 1 else [*found, _tir.EQ(_tir.floormod(p, axis.spread), 0)]


def _add(
    plan: SumsPlan, buffers: dict[str, Any], acc: Any, x: PrimExpr, at: tuple[PrimExpr, PrimExpr],
    tap: Sequence[PrimExpr], i: PrimExpr,
) -> None:  # fmt: skip
    """acc += x * the weight of (batch, channel), tap and input."""
    weight, site = buffers[plan.weight.name], Site(buffers, ())
    x = ex.cast(x, "int32")
    if plan.weights is not None:
        place = (at[1], *tap, i)
        w = ex.cast(weight[place], "int32")
    else:
        place = _weight_place(plan, weight, *at, tap, i)
        w = ex.cast(weight[place], "int32")
        x = x - plan.zero(site) if plan.zero else x
        w = w - plan.kernel_zero(site) if plan.kernel_zero else w
    tb.buffer_store(acc, ex.wrapping_add(acc[0], x * w), [0])


def _weight_place(
    plan: SumsPlan, weight: Any, n: PrimExpr, channel: PrimExpr, tap: Sequence[PrimExpr], i: PrimExpr
) -> tuple[PrimExpr, ...]:
    """Where a weight that is known at run time only lies in its own tensor."""
    if plan.lead:
        return matrix_place(plan.fused, plan.lead, 1, weight, n, (i, channel))
    many = plan.spec.groups > 1
    group, o = (channel // plan.spec.outer, channel % plan.spec.outer) if many else (0, channel)
    return weight_place(plan.spec, weight, group, o, tap, i)
