"""Workspaces: padded activations, and weights packed at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import tb, workspace
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.linear_spec import Axis, LinearSpec
from tvm_qat.kernels.loops import loops, worth_threads

_tir = tvm.tirx


def padded_activations(
    spec: LinearSpec, dtype: str, zero_point: PrimExpr, read: Callable[..., PrimExpr],
    read_flat: Callable[..., PrimExpr] | None = None,
) -> Any:  # fmt: skip
    """[N, D, H, W * C] with a ring of the zero point.

    read(n, d, h, w, c) gives an activation; read_flat(n, d, h, j) the j-th of a row of pixels,
    where the tensor is channels-last. Rows are filled and copied by plain loops, for LLVM's sake.
    """
    depth, height, width = spec.axes
    channels = spec.groups * spec.inner
    padded = workspace((spec.batch, depth.padded, height.padded, width.padded * channels), dtype)
    whole = read_flat is not None and width.spread == 1 and min(width.before, width.after) >= 0

    def fill(place: tuple[PrimExpr, ...], start: Any, count: Any) -> None:
        with tb.serial(0, count) as i:
            tb.buffer_store(padded, ex.cast(zero_point, dtype), [*place, start + i])

    with loops((spec.batch, depth.padded, height.padded), worth_threads(padded.shape)) as (n, d, h):
        source = (_source(depth, d), _source(height, h))
        with tb.If(_tir.all(*_inside(depth, d), *_inside(height, h), _tir.IntImm("bool", 1))):
            with tb.Then():
                if whole and read_flat is not None:
                    first, size = width.before * channels, width.size * channels
                    fill((n, d, h), 0, first)
                    with tb.serial(0, size) as j:
                        tb.buffer_store(padded, read_flat(n, *source, j), [n, d, h, first + j])
                    fill((n, d, h), first + size, width.after * channels)
                else:
                    fill((n, d, h), 0, width.padded * channels)
                    _copy_row(padded, (n, d, h), width, channels, lambda w, c: read(n, *source, w, c))
            with tb.Else():
                fill((n, d, h), 0, width.padded * channels)
    return padded


OTHER_SIGN = {"int8": "uint8", "uint8": "int8"}


def flipped(x: PrimExpr) -> PrimExpr:
    """An int8 as the uint8 that is 128 higher, a uint8 as the int8 that is 128 lower: its top bit flipped."""
    bits = _tir.bitwise_xor(_tir.Cast("uint8", x), _tir.IntImm("uint8", 128))
    return ex.cast(bits, OTHER_SIGN[str(x.ty.dtype)])


def flipped_copy(data: Any) -> Any:
    """A flat buffer of bytes, all `flipped`."""
    copy = workspace(data.shape, OTHER_SIGN[str(data.dtype)])
    (size,) = data.shape
    chunk = 4096
    with loops((_tir.floordiv(size + (chunk - 1), chunk),), worth_threads((size,))) as (block,):
        with tb.serial(0, _tir.min(chunk, size - block * chunk)) as i:
            tb.buffer_store(copy, flipped(data[block * chunk + i]), [block * chunk + i])
    return copy


def _copy_row(
    padded: Any, place: tuple[PrimExpr, ...], width: Axis, channels: int, read: Callable[..., PrimExpr]
) -> None:
    """The pixels of one row that lie inside; a cut (negative padding) leaves some out."""
    first = -(width.before // width.spread) if width.before < 0 else 0
    stop: Any = width.size
    if isinstance(width.size, int):
        stop = min(width.size, (width.padded - 1 - width.before) // width.spread + 1)
    with tb.serial(0, stop - first) as i:
        with tb.serial(0, channels) as c:
            at = (i + first) * width.spread + width.before
            tb.buffer_store(padded, read(i + first, c), [*place, at * channels + c])


def _source(axis: Axis, position: PrimExpr) -> PrimExpr:
    shifted = position - axis.before if axis.before else position
    return shifted // axis.spread if axis.spread > 1 else shifted


def _inside(axis: Axis, position: PrimExpr) -> list[PrimExpr]:
    """Conditions under which a padded position holds an activation."""
    if not axis.needs_padding:
        return []
    shifted = position - axis.before
    conditions = [shifted >= 0, shifted < (axis.size - 1) * axis.spread + 1]
    if axis.spread > 1:
        conditions.append(_tir.floormod(shifted, axis.spread) < 1)
    return conditions


def packed_weights(
    spec: LinearSpec, channels: int, dtype: str, read: Callable[..., PrimExpr], batch: Any = 1
) -> Any:
    """[batch * blocks, D, H, W * inner, channels], as `packing.pack` but at run time.

    read(n, group, outer, (d, h, w), inner) gives a weight without its zero point.
    """
    blocks = -(-spec.outer // channels)
    depth, height, width = spec.kernel
    tail = spec.outer - (blocks - 1) * channels
    packed = workspace((batch * spec.groups * blocks, depth, height, width * spec.inner, channels), dtype)
    extents = (batch, spec.groups, blocks, depth, height, width, spec.inner)
    with loops(extents, worth_threads(packed.shape)) as (n, group, block, d, h, w, i):
        row = ((n * spec.groups + group) * blocks + block, d, h, w * spec.inner + i)

        def fill(count: int) -> None:
            with tb.vectorized(0, count) as lane:
                weight = read(n, group, block * channels + lane, (d, h, w), i)
                tb.buffer_store(packed, ex.cast(weight, dtype), [*row, lane])
            if count < channels:
                with tb.vectorized(0, channels - count) as lane:
                    tb.buffer_store(packed, _tir.const(0, dtype), [*row, lane + count])

        if blocks == 1 or tail == channels:
            fill(tail)
        else:
            with tb.If(block < blocks - 1):
                with tb.Then():
                    fill(channels)
                with tb.Else():
                    fill(tail)
    return packed
