"""Kernels of one thread an element: elementwise chains, transpositions, concatenation, pooling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm_qat.ir import attrs_of, tvm
from tvm_qat.kernels.builder import Kernel, prim_func, tb
from tvm_qat.kernels.cuda.symbols import GpuSymbols
from tvm_qat.kernels.cuda.threads import one_for_each, require_countable
from tvm_qat.kernels.elementwise import part_term
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import decode, plain_shape, product
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.reduction import Addends, Finish, addend
from tvm_qat.kernels.terms import require_params
from tvm_qat.qnn.params import concat_params

_tir = tvm.tirx


@contextmanager
def each_element(shape: Sequence[Any]) -> Iterator[tuple[PrimExpr, ...]]:
    """A thread for each element of `shape`, with its place."""
    sizes = plain_shape(shape)
    with one_for_each(product(sizes)) as i:
        yield decode(i, sizes)


def build_elementwise(fused: Fused, _target: Any) -> Kernel:
    """A chain of elementwise calls, with broadcasting and at most one transposition."""
    operands = Operands()
    term = fused.term(operands)
    require_countable(fused, fused.shape, *(o.shape for o in operands.all()))

    def body(buffers: dict[str, Any], out: Any) -> None:
        with each_element(out.shape) as place:
            tb.buffer_store(out, term(Site(buffers, place)), list(place))

    return prim_func(fused.name, GpuSymbols(), operands.all(), fused.shape, fused.dtype, body)


def build_concatenate(fused: Fused, _target: Any) -> Kernel:
    """Parts requantized to the output's grid, or copied where they are on it already."""
    call, operands = fused.anchor, Operands()
    output = require_params(call, "output")
    parts = []
    for part, source in zip(call.args[0].fields, concat_params(call), strict=True):
        operand = operands.tensor(part)
        parts.append((operand, part_term(operand, len(fused.shape), source, output, operands)))
    require_countable(fused, fused.shape)
    axis = int(call.attrs["axis"]) % len(fused.shape)

    def body(buffers: dict[str, Any], out: Any) -> None:
        with each_element(out.shape) as place:
            start: Any = 0
            for operand, term in parts:
                length = plain_shape(buffers[operand.name])[axis]
                own = (*place[:axis], place[axis] - start, *place[axis + 1 :])
                with tb.If(_tir.And(place[axis] >= start, place[axis] < start + length)), tb.Then():
                    tb.buffer_store(out, term(Site(buffers, own)), list(place))
                start = start + length

    return prim_func(fused.name, GpuSymbols(), operands.all(), fused.shape, fused.dtype, body)


def build_max_pool(fused: Fused, _target: Any) -> Kernel:
    """A window that reaches over the border reads the nearest pixel inside, which it holds anyway."""
    attrs, operands = attrs_of(fused.anchor), Operands()
    data = operands.tensor(fused.anchor.args[0])
    require_countable(fused, fused.shape, data.shape)
    (height, width), strides, before = attrs["pool_size"], attrs["strides"], attrs["padding"][:2]

    def body(buffers: dict[str, Any], out: Any) -> None:
        source = buffers[data.name]
        rows, columns = plain_shape(source)[1:3]

        def inside(at: PrimExpr, axis: int, tap: int, size: int) -> PrimExpr:
            return _tir.max(0, _tir.min(at * strides[axis] + (tap - before[axis]), size - 1))

        with each_element(out.shape) as (n, y, x, c):
            at = [inside(y, 0, tap, rows) for tap in range(height)]
            across = [inside(x, 1, tap, columns) for tap in range(width)]
            greatest = source[n, at[0], across[0], c]
            for i in range(1, height * width):
                greatest = _tir.max(greatest, source[n, at[i // width], across[i % width], c])
            tb.buffer_store(out, greatest, [n, y, x, c])

    return prim_func(fused.name, GpuSymbols(), operands.all(), fused.shape, fused.dtype, body)


def sum_on_threads(
    addends: Addends, data: Any, shape: Sequence[Any], dtype: str, zero: PrimExpr | None, finish: Finish
) -> None:
    """The sums of pooling and mean, a thread each."""
    with each_element(shape) as place:
        index = place if len(shape) else ()
        acc = tb.alloc_buffer((1,), dtype, scope="local", layout=None)
        tb.buffer_store(acc, _tir.const(0, dtype), [0])
        with addends.each(index) as tap:
            tb.buffer_store(acc, acc[0] + addend(addends, data, index, tap, dtype, zero), [0])
        finish(index, acc[0])
