"""Kernels of elementwise groups around one transposition: one pass over memory.

Where the transposition keeps the last axis, rows are read and written by vectors. Elsewhere tiles are
computed along the axis that lies contiguous in the source, and written across:

    for each tile of ROWS columns of the output:
        tile[s, c] = value at (c, s)        vectors along c, the source's last axis
        output[c, s] = tile[s, c]

A few rows of bytes, such as the colours of an image, are written in turns by shuffles instead.
"""

from __future__ import annotations

from typing import Any

from tvm_qat.ir import Expr, dtype_of, op_name, shape_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, registers, tb, workspace
from tvm_qat.kernels.elementwise import lanes_of, segment
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import loops, plain_shape, worth_threads
from tvm_qat.kernels.operands import Operands, Site

PERMUTE = "relax.permute_dims"
ROWS = 16
_MOST_COLUMNS = 64
_DTYPES = ("float32", "int8", "uint8", "int32")


def is_permutation(call: Expr) -> bool:
    """Whether `call` reorders the axes of a tensor of known shape."""
    if op_name(call) != PERMUTE or dtype_of(call.args[0]) not in _DTYPES:
        return False
    shape = shape_of(call.args[0])
    return shape is not None and len(shape) > 1 and all(isinstance(size, int) for size in shape)


def has_permutation(fused: Fused) -> bool:
    return any(is_permutation(call) for call in fused.calls.values())


def build_permuted(fused: Fused, target: Any) -> Kernel:
    """One kernel for elementwise calls before and after one transposition."""
    operands = Operands()
    term = fused.term(operands)
    call = next(call for call in fused.calls.values() if is_permutation(call))
    axes = [int(axis) for axis in call.attrs.axes] if call.attrs.axes else list(range(len(fused.shape)))[::-1]
    along = axes.index(len(axes) - 1)

    def body(buffers: dict[str, Any], out: Any) -> None:
        def value(index: tuple[PrimExpr, ...]) -> PrimExpr:
            return term(Site(buffers, index))

        emit = _rows if along == len(axes) - 1 else _interleaved if _few(fused, along) else _tiles
        emit(out, value, along, lanes_of(target))

    return prim_func(fused.name, Symbols(), operands.all(), fused.shape, fused.dtype, body)


def _few(fused: Fused, along: int) -> bool:
    """Whether a few rows of bytes, such as colours, are written in turns."""
    shape = fused.shape
    return along == len(shape) - 2 and 1 < shape[-1] <= 4 and shape[along] >= ROWS and "int8" in fused.dtype


def _interleaved(out: Any, value: Any, along: int, _lanes: int) -> None:
    """Vectors of each row, shuffled into one run of the output; the last ones end with the rows."""
    *outer, length, rows = plain_shape(out)
    dtype = str(out.dtype)
    order = [ex.int32(i % rows * ROWS + i // rows) for i in range(ROWS * rows)]
    steps = -(-length // ROWS)
    with loops(outer, worth_threads(plain_shape(out))) as place, tb.serial(0, steps) as step:
        first = tvm.tirx.min(step * ROWS, length - ROWS) if length % ROWS else step * ROWS
        vectors = []
        for row in range(rows):
            one = registers(ROWS, dtype)
            with tb.vectorized(0, ROWS) as lane:
                tb.buffer_store(one, value((*place, first + lane, row)), [lane])
            vectors.append(one.vload([0], f"{dtype}x{ROWS}"))
        for start in range(0, ROWS * rows, ROWS):
            part = tvm.tirx.Shuffle(vectors, order[start : start + ROWS])
            tb.buffer_store(out, part, [*place, first, tvm.tirx.Ramp(start, 1, ROWS)])


def _rows(out: Any, value: Any, _along: int, lanes: int) -> None:
    *outer, inner = plain_shape(out)
    with loops(outer, worth_threads((*outer, inner))) as place:
        segment(lambda i: tb.buffer_store(out, value((*place, i)), [*place, i]), 0, inner, lanes)


def _tiles(out: Any, value: Any, along: int, lanes: int) -> None:
    shape = plain_shape(out)
    length, last = shape[along], shape[-1]
    others = [size for axis, size in enumerate(shape[:-1]) if axis != along]
    columns = next((n for n in range(_MOST_COLUMNS, 15, -1) if length % n == 0), min(length, _MOST_COLUMNS))
    with loops(others, worth_threads(shape)) as place:
        tile = workspace((ROWS * columns,), str(out.dtype))

        def at(c: PrimExpr, s: PrimExpr) -> tuple[PrimExpr, ...]:
            return (*place[:along], c, *place[along:], s)

        def block(first_s: PrimExpr, rows: int, first_c: PrimExpr, count: int) -> None:
            for s in range(rows):
                segment(
                    lambda c, s=s: tb.buffer_store(  # type: ignore[misc]
                        tile, value(at(first_c + c, first_s + s)), [s * columns + c]
                    ), 0, count, lanes,
                )  # fmt: skip
            with tb.serial(0, count) as c, tb.vectorized(0, rows) as s:
                tb.buffer_store(out, tile[s * columns + c], list(at(first_c + c, first_s + s)))

        def across(first_s: PrimExpr, rows: int) -> None:
            with tb.serial(0, length // columns) as i:
                block(first_s, rows, i * columns, columns)
            if length % columns:
                block(first_s, rows, length - length % columns, length % columns)

        if last >= ROWS:
            with tb.serial(0, last // ROWS) as i:
                across(i * ROWS, ROWS)
        if last % ROWS:
            across(last - last % ROWS, last % ROWS)
