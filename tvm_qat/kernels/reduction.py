"""Kernels of avg_pool and mean: integer sums, one rounding, then the epilogue.

Sums of integers are exact in any order, so vectorizing them changes no bit. Lanes run along the
last axis of the output (channels, in NHWC).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import attrs_of, shape_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import litert
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, registers, tb
from tvm_qat.kernels.elementwise import lanes_of
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import loops, plain_shape, product, worth_threads
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.terms import Term, constant, require_params, saturated
from tvm_qat.qnn.arithmetic import F32, Array, multiplier
from tvm_qat.qparams import STORAGE_RANGE, QParams

_tir = tvm.tirx


@dataclass(frozen=True)
class Addends:
    """A sum over `taps` for each output element.

    read(data, index, tap) : one addend, an integer. inside(index, tap) : conditions under which
    the addend exists. ranges(index) : where no condition depends on the last axis of the output,
    the first tap along each axis and the one behind the last instead.
    """

    taps: tuple[Any, ...]
    read: Callable[[Any, Sequence[PrimExpr], Sequence[PrimExpr]], PrimExpr]
    inside: Callable[[Sequence[PrimExpr], Sequence[PrimExpr]], list[PrimExpr]] | None = None
    ranges: Callable[[Sequence[PrimExpr]], list[tuple[PrimExpr, PrimExpr]]] | None = None

    @contextmanager
    def each(self, index: Sequence[PrimExpr]) -> Iterator[Sequence[PrimExpr]]:
        """One loop over all taps, or one for each axis."""
        if self.ranges is None:
            with loops(self.taps) as tap:
                yield tap
            return
        with ExitStack() as nested:
            yield [nested.enter_context(tb.serial(*bounds)) for bounds in self.ranges(index)]

    def count(self, index: Sequence[PrimExpr]) -> PrimExpr:
        """How many addends there are."""
        if self.ranges is None:
            return ex.int32(int(np.prod(self.taps)))
        return ex.cast(product([_tir.max(0, stop - start) for start, stop in self.ranges(index)]), "int32")


Finish: TypeAlias = Callable[[Sequence[PrimExpr], PrimExpr], None]
"""(index, sum) -> nothing: stores the result."""

Sums: TypeAlias = Callable[[Addends, Any, Sequence[Any], str, PrimExpr | None, Finish], None]
"""(addends, data, shape of the output, dtype of the sums, zero point of the addends, finish)."""


def build_avg_pool(
    fused: Fused, target: Any, sums: Sums | None = None, symbols_of: type[Symbols] = Symbols
) -> Kernel:
    """Average pooling over 1 to 3 axes; the factor of each window is computed at compile time."""
    call, attrs = fused.anchor, attrs_of(fused.anchor)
    shape, dims = shape_of(call.args[0]) or (), len(attrs["pool_size"])
    first = str(attrs["layout"]).index("W") - dims + 1
    symbols = symbols_of()
    sizes = symbols.shape(shape)[first : first + dims]
    strides, dilation, before = attrs["strides"], attrs["dilation"], attrs["padding"][:dims]
    padded = any(attrs["padding"]) or bool(attrs["ceil_mode"])

    def place(index: Sequence[PrimExpr], tap: Sequence[PrimExpr]) -> list[PrimExpr]:
        return [index[first + i] * strides[i] + tap[i] * dilation[i] - before[i] for i in range(dims)]

    def read(data: Any, index: Sequence[PrimExpr], tap: Sequence[PrimExpr]) -> PrimExpr:
        at = [*index[:first], *place(index, tap), *index[first + dims :]]
        return data[tuple(at)]

    def inside(index: Sequence[PrimExpr], tap: Sequence[PrimExpr]) -> list[PrimExpr]:
        return [c for at, size in zip(place(index, tap), sizes, strict=True) for c in (at >= 0, at < size)]

    def ranges(index: Sequence[PrimExpr]) -> list[tuple[PrimExpr, PrimExpr]]:
        """Tap t reads pixel `start + t * dilation`."""
        found = []
        for start, size, most, step in zip(place(index, [0] * dims), sizes, taps, dilation, strict=True):
            low = _tir.max(0, _tir.floordiv(step - 1 - start, step))
            found.append((low, _tir.min(most, _tir.floordiv(size - start + step - 1, step))))
        return found

    taps = tuple(attrs["pool_size"])
    addends = Addends(taps, read)
    if padded:
        last = str(attrs["layout"]).endswith("C")
        addends = Addends(taps, read, ranges=ranges) if last else Addends(taps, read, inside)
    counts = _pool_counts(fused, first)
    if attrs["rounding"] == "tflite":
        rounded = lambda _, output, o: litert.average(counts, output, o)  # noqa: E731
        return _build(fused, target, symbols, addends, rounded, sums, whole=False)
    return _build(fused, target, symbols, addends, _by_factor(counts), sums)


def _pool_counts(fused: Fused, first: int) -> Array:
    """Elements of each window, shaped to broadcast against the output."""
    attrs, dims = attrs_of(fused.anchor), len(attrs_of(fused.anchor)["pool_size"])
    pool, padding = attrs["pool_size"], attrs["padding"]
    if not (any(padding) or attrs["ceil_mode"]):
        return np.asarray(np.prod(pool), np.int64)
    shape = shape_of(fused.anchor.args[0]) or ()
    counts = np.ones((), np.int64)
    for i in range(dims):
        size, out = shape[first + i], fused.shape[first + i]
        if not (isinstance(size, int) and isinstance(out, int)):
            reason = "qnn.avg_pool with padding needs spatial sizes known at compile time"
            raise UnsupportedError(located(reason, node=fused.source))
        declared = padding[i] + size + padding[i + dims]
        low, high = (0, declared) if attrs["count_include_pad"] else (padding[i], padding[i] + size)
        at = np.arange(out)[:, None] * attrs["strides"][i] + np.arange(pool[i]) * attrs["dilation"][i]
        inside = ((at >= low) & (at < high)).sum(axis=1)
        counts = counts[..., None] * inside
    after = len(fused.shape) - first - dims
    return counts.reshape(*counts.shape, *[1] * after)


Rounded = Callable[[QParams, QParams, Operands], Term]
"""(grid of the input, of the output, operands) -> the result, given the sum."""


def _by_factor(counts: Array) -> Rounded:
    """float32(sum) * (multiplier / count)."""

    def build(source: QParams, output: QParams, operands: Operands) -> Term:
        with np.errstate(divide="ignore"):
            factor = constant((multiplier(source, output) / counts.astype(F32)).astype(F32), operands)
        real = lambda s: ex.cast(s.anchor, "float32") * factor(s)  # noqa: E731
        return saturated(real, output.zero_point, output, operands)

    return build


def build_mean(
    fused: Fused, target: Any, sums: Sums | None = None, symbols_of: type[Symbols] = Symbols
) -> Kernel:
    """Mean over any axes of known length."""
    call, attrs = fused.anchor, attrs_of(fused.anchor)
    shape, axes = shape_of(call.args[0]) or (), [int(a) for a in attrs["axis"]]
    lengths = tuple(shape[a] for a in axes)
    if not all(isinstance(n, int) for n in lengths):
        reason = "qnn.mean needs the length of the reduced axes at compile time"
        raise UnsupportedError(located(reason, node=fused.source))
    kept = [a for a in range(len(shape)) if a not in axes]

    def read(data: Any, index: Sequence[PrimExpr], tap: Sequence[PrimExpr]) -> PrimExpr:
        place = dict(zip(axes, tap, strict=True))
        own = kept if not attrs["keepdims"] else range(len(shape))
        place |= {a: i for a, i in zip(own, index, strict=True) if a not in axes}
        return data[tuple(place[a] for a in range(len(shape)))]

    count = np.asarray(np.prod(lengths, dtype=np.int64))
    rounded = _by_factor(count)
    if attrs["rounding"] == "tflite":
        rounded = lambda source, output, o: litert.mean(source, output, int(count), o)  # noqa: E731
    return _build(fused, target, symbols_of(), Addends(lengths, read), rounded, sums)


def _build(
    fused: Fused, target: Any, symbols: Symbols, addends: Addends,
    rounded_of: Rounded, sums: Sums | None, whole: bool = True,
) -> Kernel:  # fmt: skip
    """sums : `reduce_sums` where None. whole : addends are counted from their zero point."""
    call, operands = fused.anchor, Operands()
    data = operands.tensor(call.args[0])
    source, output = require_params(call, "input"), require_params(call, "output")
    dtype = _sum_dtype(data.dtype, addends.taps)
    shift = constant(source.zero_point, operands) if whole and np.any(source.zero_point) else None
    rounded = rounded_of(source, output, operands)
    term = fused.term(operands)

    def body(buffers: dict[str, Any], out: Any) -> None:
        def finish(index: Sequence[PrimExpr], total: PrimExpr) -> None:
            place = tuple(index)
            value = term(Site(buffers, place, rounded(Site(buffers, place, total))))
            tb.buffer_store(out, value, list(place))

        zero = shift(Site(buffers, ())) if shift else None
        if sums is not None:
            sums(addends, buffers[data.name], out.shape, dtype, zero, finish)
            return
        narrow = _narrow(addends, data.dtype)
        reduce_sums(
            addends, buffers[data.name], out.shape, dtype, zero, lanes_of(target), finish, narrow
        )  # fmt: skip

    return prim_func(fused.name, symbols, operands.all(), fused.shape, fused.dtype, body)


def _sum_dtype(dtype: str, taps: Sequence[int]) -> str:
    """int32 where no sum of this many centred values can exceed it."""
    low, high = STORAGE_RANGE[dtype]
    return "int32" if (high - low) * int(np.prod(taps, dtype=object)) < 2**31 else "int64"


def _narrow(addends: Addends, dtype: str) -> str | None:
    """16 bits that hold any sum of bytes as they are; None where zero points go out one by one."""
    few = int(np.prod(addends.taps, dtype=object)) <= 256
    return {"uint8": "uint16", "int8": "int16"}.get(dtype) if few and addends.inside is None else None


def reduce_sums(
    addends: Addends, data: Any, shape: Sequence[Any], dtype: str, zero: PrimExpr | None, lanes: int,
    finish: Finish, narrow: str | None = None,
) -> None:  # fmt: skip
    """All sums; lanes along the last axis of the output. narrow : holds sums of bytes as they are."""
    *outer, last = plain_shape(shape) or [1]
    parallel = worth_threads((*outer, last, *addends.taps))

    def block(prefix: Sequence[PrimExpr], start: PrimExpr, count: int) -> None:
        acc = registers(count, narrow or dtype)
        with tb.vectorized(0, count) as lane:
            tb.buffer_store(acc, _tir.const(0, narrow or dtype), [lane])
        with addends.each((*prefix, start)) as tap:
            with tb.vectorized(0, count) as lane:
                index = (*prefix, start + lane) if len(shape) else ()
                value = addend(addends, data, index, tap, narrow or dtype, None if narrow else zero)
                tb.buffer_store(acc, acc[lane] + value, [lane])
        with tb.vectorized(0, count) as lane:
            total = ex.cast(acc[lane], dtype)
            if narrow and zero is not None:
                total = total - ex.cast(zero * addends.count((*prefix, start)), dtype)
            finish((*prefix, start + lane) if len(shape) else (), total)

    with loops(outer, parallel) as prefix:
        with loops((last // lanes,)) as (i,):
            block(prefix, i * lanes, lanes)
        rest = last % lanes
        if not isinstance(rest, int):
            with tb.serial(0, rest) as i:
                block(prefix, last // lanes * lanes + i, 1)
        elif rest:
            block(prefix, last - rest, rest)


def addend(
    addends: Addends, data: Any, index: Sequence[PrimExpr], tap: Sequence[PrimExpr], dtype: str,
    zero: PrimExpr | None,
) -> PrimExpr:  # fmt: skip
    """One addend as `dtype`, less the zero point; zero where there is none."""
    value = ex.cast(addends.read(data, index, tap), dtype)
    value = value if zero is None else value - ex.cast(zero, dtype)
    if addends.inside is None:
        return value
    return _tir.if_then_else(_tir.all(*addends.inside(index, tap)), value, _tir.const(0, dtype))
