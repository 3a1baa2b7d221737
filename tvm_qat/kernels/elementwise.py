"""Kernels of elementwise chains and of concatenation: one pass over memory, vectorized.

Neighbouring axes that all operands treat alike become one, so that the innermost loop is long:
[N, H, W, C] with scalars is one axis, with per-channel parameters it is [N * H * W, C].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Shape
from tvm_qat.kernels.blocking import vector_bits
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb, view
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import loops, plain, plain_shape, product, worth_threads
from tvm_qat.kernels.operands import Operand, Operands, Site, is_one
from tvm_qat.kernels.terms import Term, requantized, require_params
from tvm_qat.qnn.params import concat_params

Store: TypeAlias = Callable[[tuple[PrimExpr, ...]], None]
Run: TypeAlias = tuple[int, int]
"""Axes [first, stop) that are looped over as one."""

CHUNK = 4096
"""Elements that one step of a parallel loop computes."""


def lanes_of(target: Any) -> int:
    """Elements of 8 bits in a vector register."""
    return vector_bits(target) // 8


def build_elementwise(fused: Fused, target: Any) -> Kernel:
    """One kernel for a chain of elementwise calls with broadcasting."""
    symbols, operands = Symbols(), Operands()
    term = fused.term(operands)
    every = operands.all()
    shape = symbols.shape(fused.shape)
    runs = merged_axes(shape, [symbols.shape(o.shape) for o in every if not o.indexed])

    def body(buffers: dict[str, Any], output: Any) -> None:
        seen = {
            o.name: buffers[o.name] if o.indexed else merged_view(buffers[o.name], runs, len(shape))
            for o in every
        }
        merged = merged_view(output, runs, len(shape))

        def store(index: tuple[PrimExpr, ...]) -> None:
            tb.buffer_store(merged, term(Site(seen, index)), list(index))

        sweep(merged.shape, store, lanes_of(target))

    return prim_func(fused.name, symbols, every, fused.shape, fused.dtype, body)


def merged_axes(shape: Shape, operands: Sequence[Shape]) -> list[Run]:
    """Runs of axes along which every operand either follows the output or repeats."""
    aligned = [(1,) * (len(shape) - len(o)) + tuple(o) for o in operands]
    follows = [tuple(not is_one(o[axis]) for o in aligned) for axis in range(len(shape))]
    runs: list[Run] = []
    for axis, size in enumerate(shape):
        alike = runs and (is_one(size) or follows[axis] == follows[_leader(shape, runs[-1])])
        if alike or (runs and all(is_one(s) for s in shape[slice(*runs[-1])])):
            runs[-1] = (runs[-1][0], axis + 1)
        else:
            runs.append((axis, axis + 1))
    return runs


def _leader(shape: Shape, run: Run) -> int:
    """The first axis of a run whose length is not 1: it shows how operands behave along the run."""
    return next((axis for axis in range(*run) if not is_one(shape[axis])), run[0])


def merged_view(buffer: Any, runs: Sequence[Run], ndim: int) -> Any:
    """A buffer with the axes of each run joined; leading axes that it lacks count as 1."""
    if not len(buffer.shape):
        return buffer
    aligned = (1,) * (ndim - len(buffer.shape)) + tuple(buffer.shape)
    return view(buffer, [product(aligned[first:stop]) for first, stop in runs])


def sweep(shape: Sequence[Any], store: Store, lanes: int) -> None:
    """All elements of `shape`, in parallel over the outer axes or over chunks of the only one."""
    *outer, inner = plain_shape(shape) if len(shape) else (1,)
    prefix = len(shape) - 1
    if not all(is_one(size) for size in outer):
        with loops(outer, worth_threads(plain_shape(shape))) as place:
            segment(lambda i: store((*place, i)), 0, inner, lanes)
        return
    sweep_line(lambda i: store((*[0] * prefix, i) if prefix >= 0 else ()), inner, lanes)


def sweep_line(store: Callable[[PrimExpr], None], length: Any, lanes: int) -> None:
    """One long axis."""
    length = plain(length)
    if isinstance(length, int) and not worth_threads((length,)):
        segment(store, 0, length, lanes)
        return
    chunks = length // CHUNK
    with tb.parallel(0, chunks) as chunk:
        segment(store, chunk * CHUNK, CHUNK, lanes)
    segment(store, chunks * CHUNK, length % CHUNK, lanes)


def segment(store: Callable[[PrimExpr], None], start: PrimExpr, length: Any, lanes: int) -> None:
    """`length` neighbouring elements: whole vectors, then the rest."""
    length = plain(length)
    with loops((length // lanes,)) as (block,):
        with tb.vectorized(0, lanes) as lane:
            store(start + block * lanes + lane)
    rest, done = length % lanes, start + length // lanes * lanes
    if not isinstance(rest, int):
        with tb.serial(0, rest) as i:
            store(done + i)
    elif rest == 1:
        store(done)
    elif rest:
        with tb.vectorized(0, rest) as lane:
            store(done + lane)


def build_concatenate(fused: Fused, target: Any) -> Kernel:
    """Parts requantized to the output's grid, or copied where they are on it already."""
    call = fused.anchor
    if len(fused.calls) > 1:
        raise UnsupportedError(located("qnn.concatenate has no epilogue", node=fused.source))
    symbols, operands = Symbols(), Operands()
    output = require_params(call, "output")
    terms, parts = [], []
    for part, source in zip(call.args[0].fields, concat_params(call), strict=True):
        operand = operands.tensor(part)
        terms.append(part_term(operand, len(fused.shape), source, output, operands))
        parts.append(operand)
    axis = int(call.attrs["axis"]) % len(fused.shape)

    def body(buffers: dict[str, Any], out: Any) -> None:
        outer = out.shape[:axis]
        rows = view(out, (product(outer), product(out.shape[axis:])))
        with loops((product(outer),), parallel=worth_threads(plain_shape(out))) as (row,):
            start: Any = 0
            for operand, term in zip(parts, terms, strict=True):
                buffer = buffers[operand.name]
                length = product(buffer.shape[axis:])
                seen = {**buffers, operand.name: view(buffer, (product(outer), length))}
                segment(_store_part(rows, seen, term, row, start), 0, length, lanes_of(target))
                start = start + length

    return prim_func(fused.name, symbols, operands.all(), fused.shape, fused.dtype, body)


def part_term(operand: Operand, ndim: int, source: Any, output: Any, operands: Operands) -> Term:
    """An element of one part of a concatenation on the output's grid."""

    def copy(site: Site) -> PrimExpr:
        return site.element(operand)

    if source.same_grid(output) and source.range == output.range:
        return copy
    return requantized(copy, operand.dtype, ndim, source, output, operands)


def _store_part(
    rows: Any, seen: dict[str, Any], term: Term, row: PrimExpr, start: PrimExpr
) -> Callable[[PrimExpr], None]:
    return lambda i: tb.buffer_store(rows, term(Site(seen, (row, i))), [row, start + i])
