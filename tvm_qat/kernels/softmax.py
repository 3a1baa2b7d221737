"""The kernel of softmax of 8 bits: greatest value, table of powers, exact integer sum, one scaling.

By a float32 division (`qnn.pointwise.softmax`), or by LiteRT's fixed-point reciprocal
(`qnn.litert.softmax`). Integers may be compared and added in any order, so lanes hold partial results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import attrs_of, const, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import litert
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb, workspace
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import loops, plain_shape, worth_threads
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.terms import Term, clamped, constant, require_params, saturated
from tvm_qat.qnn.arithmetic import F32, Array
from tvm_qat.qnn.litert import SUM_BITS
from tvm_qat.qnn.litert import exp_table as litert_table
from tvm_qat.qnn.pointwise import exp_table
from tvm_qat.qparams import QParams

_tir = tvm.tirx
_LANES = 16


@dataclass(frozen=True)
class Profile:
    """What the two ways of computing it do not share.

    table : 256 powers, int32. addend : what a power adds to the sum. shares : sum -> (power -> value
    that `rounded` takes as the site's anchor), emitted once a row.
    """

    table: Array
    addend: Callable[[PrimExpr], PrimExpr]
    shares: Callable[[PrimExpr], Callable[[PrimExpr], PrimExpr]]
    rounded: Term


Place: TypeAlias = Callable[[PrimExpr], tuple[PrimExpr, ...]]
"""Position in a row -> place in the tensor."""

RowOf: TypeAlias = Callable[
    [Profile, Place, int, Any, Any, Callable[[tuple[PrimExpr, ...], PrimExpr], None]], None
]
"""(profile, place, length, data, table, finish(place, share)): all of one row."""

Rows: TypeAlias = Callable[[list[Any], int], AbstractContextManager[tuple[tuple[PrimExpr, ...], RowOf]]]
"""(other axes, length) -> a loop over the places of rows in them, and what does a row."""


def build_softmax(
    fused: Fused, _target: Any, rows: Rows | None = None, symbols_of: type[Symbols] = Symbols
) -> Kernel:
    """Softmax over one axis of known length."""
    call, operands = fused.anchor, Operands()
    source, output = require_params(call, "input"), require_params(call, "output")
    axis = int(attrs_of(call)["axis"])
    length = fused.shape[axis]
    if not isinstance(length, int):
        raise UnsupportedError(located("softmax needs an axis of known length", node=fused.source))
    data = operands.tensor(call.args[0])
    exact = attrs_of(call)["rounding"] == "tflite"
    profile = (_of_litert if exact else _by_division)(source, output, length, operands)
    powers = operands.tensor(const(profile.table), indexed=True)
    term = fused.term(operands)

    def body(buffers: dict[str, Any], out: Any) -> None:
        def finish(index: tuple[PrimExpr, ...], share: PrimExpr) -> None:
            value = term(Site(buffers, index, profile.rounded(Site(buffers, index, share))))
            tb.buffer_store(out, value, list(index))

        others = plain_shape([*out.shape[:axis], *out.shape[axis + 1 :]])
        with (rows or _rows)(others, length) as (at, row):
            place = lambda i: (*at[:axis], i, *at[axis:])  # noqa: E731
            row(profile, place, length, buffers[data.name], buffers[powers.name], finish)

    return prim_func(fused.name, symbols_of(), operands.all(), fused.shape, fused.dtype, body)


@contextmanager
def _rows(others: list[Any], length: int) -> Iterator[tuple[tuple[PrimExpr, ...], RowOf]]:
    with loops(others, worth_threads((*others, length))) as at:
        yield at, _row


def _by_division(source: QParams, output: QParams, length: int, operands: Operands) -> Profile:
    inverse = constant(np.asarray(F32(1) / output.scale.astype(F32), F32), operands)
    rounded = saturated(lambda s: s.anchor * inverse(s), output.zero_point, output, operands)
    return Profile(
        exp_table(float(source.scale), length),
        lambda power: power,
        lambda total: lambda power: ex.cast(power, "float32") / ex.cast(total, "float32"),
        rounded,
    )


def _of_litert(source: QParams, output: QParams, _length: int, operands: Operands) -> Profile:
    def shares(total: PrimExpr) -> Callable[[PrimExpr], PrimExpr]:
        """Newton's division, step by step in memory, so that no expression holds it twice."""
        scale, half, exponent = (workspace((1,), "int64") for _ in range(3))
        excess, right = litert.reciprocal_of_sum(total)
        tb.buffer_store(exponent, right, [0])
        tb.buffer_store(half, litert.half_of_sum(excess), [0])
        tb.buffer_store(scale, litert.newton_start(half[0]), [0])
        for _ in range(3):
            tb.buffer_store(scale, litert.newton_step(scale[0], half[0]), [0])
        tb.buffer_store(scale, litert.saturated_left(scale[0], 1), [0])
        return lambda power: litert.share(power, scale[0], exponent[0])

    return Profile(
        litert_table(float(F32(source.scale))),
        _rounded,
        shares,
        clamped(lambda s: s.anchor, output.zero_point, output, operands),
    )


def _rounded(power: PrimExpr) -> PrimExpr:
    """A power, which is not negative, divided by 2^SUM_BITS; without a sum that exceeds int32."""
    return _tir.shift_right(_tir.shift_right(power, ex.int32(SUM_BITS - 1)) + ex.int32(1), ex.int32(1))


def _row(
    profile: Profile, place: Callable[[PrimExpr], tuple[PrimExpr, ...]], length: int, data: Any, table: Any,
    finish: Callable[[tuple[PrimExpr, ...], PrimExpr], None],
) -> None:  # fmt: skip
    lanes = min(length, _LANES)
    greatest, total = workspace((lanes,), "int32"), workspace((lanes,), "int32")
    powers = workspace((length,), "int32")
    with tb.vectorized(0, lanes) as lane:
        tb.buffer_store(greatest, ex.int32(-(2**31)), [lane])
        tb.buffer_store(total, ex.int32(0), [lane])

    def compare(i: PrimExpr, lane: PrimExpr) -> None:
        tb.buffer_store(greatest, _tir.max(greatest[lane], ex.cast(data[place(i)], "int32")), [lane])

    def add(i: PrimExpr, lane: PrimExpr) -> None:
        tb.buffer_store(total, total[lane] + profile.addend(powers[i]), [lane])

    _by_lanes(length, lanes, compare)
    for i in range(1, lanes):
        tb.buffer_store(greatest, _tir.max(greatest[0], greatest[i]), [0])
    with tb.serial(0, length) as i:
        tb.buffer_store(powers, table[greatest[0] - ex.cast(data[place(i)], "int32")], [i])
    _by_lanes(length, lanes, add)
    for i in range(1, lanes):
        tb.buffer_store(total, total[0] + total[i], [0])
    share = profile.shares(total[0])
    _by_lanes(length, lanes, lambda i, _: finish(place(i), share(powers[i])))


def _by_lanes(length: int, lanes: int, step: Callable[[PrimExpr, PrimExpr], None]) -> None:
    """step(position, lane) over a row, vector by vector."""
    with loops((length // lanes,)) as (block,), tb.vectorized(0, lanes) as lane:
        step(block * lanes + lane, lane)
    if length % lanes:
        with tb.vectorized(0, length % lanes) as lane:
            step(length // lanes * lanes + lane, lane)
