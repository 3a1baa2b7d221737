"""Kernels of softmax and normalization over the last axis, with what is elementwise around them.

    for each row, in parallel:
        value[i] = elementwise calls before the operator      (kept, where there are any)
        sums and greatest values of the row
        output[i] = elementwise calls after it

Sums have one order on every machine: `LANES` partial sums, element i in lane i % LANES, then halves
added to halves until one is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tvm_qat.ir import Expr, Var, attrs_of, op_name, shape_of, tvm
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb, workspace
from tvm_qat.kernels.elementwise import lanes_of, segment
from tvm_qat.kernels.expressions import PrimExpr, float32
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import decode, loops, plain_shape, product, worth_threads
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.own_functions import call as own
from tvm_qat.kernels.terms import Term

_tir = tvm.tirx

LANES = 32
MOST_KEPT = 1 << 14
"""Elements of a row that a kernel keeps at most; longer rows are left to TVM."""

_ROWS_AT_ONCE = 16
_STEP_WORK = 4

Values: TypeAlias = Callable[[PrimExpr], PrimExpr]
"""Position in a row -> float32 value."""

Each: TypeAlias = Callable[[Callable[[PrimExpr], None]], None]
"""Runs a step for each position in a row."""


def is_row_operator(call: Expr) -> bool:
    """Whether `call` is an operator of this module, over a last axis of known length."""
    name = op_name(call)
    if name not in _ROW_OPERATORS:
        return False
    shape, attrs = shape_of(call.args[0]), attrs_of(call)
    if not shape or not isinstance(shape[-1], int) or not 1 <= shape[-1] <= MOST_KEPT:
        return False
    axes = attrs["axis"] if "axis" in attrs else attrs["axes"]
    listed = [int(axis) % len(shape) for axis in (axes if isinstance(axes, list | tuple) else [axes])]
    return listed == [len(shape) - 1]


def has_row_operator(fused: Fused) -> bool:
    return any(is_row_operator(call) for call in fused.calls.values())


class Row(Protocol):
    """What operators of rows are written with."""

    def keep(self, values: Values) -> Values:
        """values, computed once."""

    def fold(
        self, values: Values, combine: Callable[[PrimExpr, PrimExpr], PrimExpr], first: float
    ) -> PrimExpr:
        """All values combined in the order that this module says; `combine` is `add` or `tirx.max`."""

    def mean(self, values: Values) -> PrimExpr:
        """Their sum, divided by how many they are."""


def add(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return x + y


@dataclass(frozen=True)
class RowOfVectors:
    """One row: its length, scratch memory (in turns), the vector length of loops that only map."""

    length: int
    scratch: Callable[[], Any]
    lanes: int

    def each(self, store: Callable[[PrimExpr], None]) -> None:
        segment(store, 0, self.length, self.lanes)

    def keep(self, values: Values) -> Values:
        """values, computed once into scratch."""
        memory = self.scratch()
        self.each(lambda i: tb.buffer_store(memory, values(i), [i]))
        return lambda i: memory[i]

    def fold(
        self, values: Values, combine: Callable[[PrimExpr, PrimExpr], PrimExpr], first: float
    ) -> PrimExpr:
        acc = workspace((LANES,), "float32")
        with tb.vectorized(0, LANES) as lane:
            tb.buffer_store(acc, float32(first), [lane])
        blocks, rest = divmod(self.length, LANES)
        if blocks:
            with loops((blocks,)) as (block,), tb.vectorized(0, LANES) as lane:
                tb.buffer_store(acc, combine(acc[lane], values(block * LANES + lane)), [lane])
        if rest:
            with tb.vectorized(0, rest) as lane:
                tb.buffer_store(acc, combine(acc[lane], values(blocks * LANES + lane)), [lane])
        width = LANES // 2
        while width > 1:
            with tb.vectorized(0, width) as lane:
                tb.buffer_store(acc, combine(acc[lane], acc[lane + width]), [lane])
            width //= 2
        return scalar(combine(acc[0], acc[1]))

    def mean(self, values: Values) -> PrimExpr:
        return scalar(self.fold(values, add, 0.0) / float32(float(self.length)))


def scalar(value: PrimExpr) -> PrimExpr:
    """value, computed here and kept in a register."""
    kept = workspace((1,), str(value.ty.dtype))
    tb.buffer_store(kept, value, [0])
    return kept[0]


RowOperator: TypeAlias = Callable[[Row, Expr, Values, list[Values]], Values]
"""(row, call, its data, its other operands) -> its result."""


def _softmax(row: Row, _call: Expr, data: Values, _others: list[Values]) -> Values:
    """Powers below 2^-126 of the greatest count as zero."""
    greatest = row.fold(data, _tir.max, float("-inf"))
    powers = row.keep(lambda i: own("exp_of_negative", data(i) - greatest))
    share = scalar(float32(1.0) / row.fold(powers, add, 0.0))
    return lambda i: powers(i) * share


def _layer_norm(row: Row, call: Expr, data: Values, others: list[Values]) -> Values:
    """The variance is the mean of squared deviations: no difference of large numbers."""
    attrs = attrs_of(call)
    centre = row.mean(data)
    spread = row.mean(lambda i: (data(i) - centre) * (data(i) - centre))
    factor = scalar(float32(1.0) / _tir.sqrt(spread + float32(float(attrs["epsilon"]))))
    gamma, beta = others

    def value(i: PrimExpr) -> PrimExpr:
        result = (data(i) - centre) * factor
        result = result * gamma(i) if attrs.get("scale", True) else result
        return result + beta(i) if attrs.get("center", True) else result

    return value


def _rms_norm(row: Row, call: Expr, data: Values, others: list[Values]) -> Values:
    square = row.mean(lambda i: data(i) * data(i))
    factor = scalar(float32(1.0) / _tir.sqrt(square + float32(float(attrs_of(call)["epsilon"]))))
    return lambda i: data(i) * factor * others[0](i)


_ROW_OPERATORS: dict[str, RowOperator] = {
    "relax.nn.softmax": _softmax,
    "relax.nn.layer_norm": _layer_norm,
    "relax.nn.rms_norm": _rms_norm,
}


ROW_OPERATORS = tuple(_ROW_OPERATORS)


EachRow: TypeAlias = Callable[
    [list[Any], int, int, Any], AbstractContextManager[tuple[tuple[PrimExpr, ...], Row, Each]]
]
"""(outer axes, length, rows kept, target) -> a loop over rows: place, row, and a loop over its elements."""


def build_rows(
    fused: Fused, target: Any, each_row: EachRow | None = None, symbols_of: type[Symbols] = Symbols
) -> Kernel:
    """One kernel for a group with one operator of rows."""
    symbols, operands = symbols_of(), Operands()
    carried, call = next((v, c) for v, c in fused.calls.items() if is_row_operator(c))
    data, *others = (fused.value_of(arg, operands) for arg in call.args)
    after = fused.term(operands, carried)
    every, length = operands.all(), int(fused.shape[-1])
    keeps = isinstance(call.args[0], Var) and call.args[0] in fused.calls

    def body(buffers: dict[str, Any], out: Any) -> None:
        outer = plain_shape(out)[:-1]
        with (each_row or _rows)(outer, length, 1 + keeps, target) as (place, row, each):

            def at(term: Term, anchor: Values | None = None) -> Values:
                return lambda i: term(Site(buffers, (*place, i), anchor(i) if anchor else None))

            values = row.keep(at(data)) if keeps else at(data)
            result = _ROW_OPERATORS[op_name(call)](row, call, values, [at(other) for other in others])
            final = at(after, result)
            each(lambda i: tb.buffer_store(out, final(i), [*place, i]))

    return prim_func(fused.name, symbols, every, fused.shape, fused.dtype, body)


@contextmanager
def _rows(
    outer: list[Any], length: int, kept: int, target: Any
) -> Iterator[tuple[tuple[PrimExpr, ...], Row, Each]]:
    """A loop over rows, which share `kept` rows of scratch memory for as many as one step does."""
    total = product(outer)
    steps = -(-total // _ROWS_AT_ONCE) if isinstance(total, int) else tvm.tirx.ceildiv(total, _ROWS_AT_ONCE)
    parallel = worth_threads((*outer, length * _STEP_WORK))
    with (tb.parallel if parallel else tb.serial)(0, steps) as step:
        memory = iter([workspace((length,), "float32") for _ in range(kept)])
        first = step * _ROWS_AT_ONCE
        with tb.serial(0, _tir.min(_ROWS_AT_ONCE, total - first)) as i:
            row = RowOfVectors(length, lambda: next(memory), lanes_of(target))
            yield decode(first + i, outer), row, row.each
