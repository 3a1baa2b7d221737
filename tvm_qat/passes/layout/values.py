"""A tensor carried channels-last, and the two transposes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_qat.ir import Call, Expr, array_of, attrs_of, const, is_const, op_name, relax, shape_of, source_of
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.match import definition


@dataclass(frozen=True, eq=False)
class Laid:
    """A tensor written [N, C, ...spatial] that is held as [N, ...spatial, C]."""

    expr: Expr
    carried = True

    @property
    def rank(self) -> int:
        return len(shape_of(self.expr) or ())


def to_last(rank: int) -> list[int]:
    """The permutation from channels-first to channels-last: new axis i is old axis result[i]."""
    return [0, *range(2, rank), 1]


def to_first(rank: int) -> list[int]:
    return [0, rank - 1, *range(1, rank - 1)]


def new_axis(axis: int, rank: int) -> int:
    """Where an axis of the written tensor lies in the channels-last one."""
    return to_last(rank).index(axis % rank)


def laid(walk: Walk, value: object, rank: int) -> Expr:
    """`value` channels-last, as an expression; transposed once however often it is needed."""
    if isinstance(value, Laid):
        return value.expr
    if is_const(value):
        padded = array_of(value).reshape((1,) * (rank - array_of(value).ndim) + array_of(value).shape)
        return const(np.ascontiguousarray(padded.transpose(to_last(rank))))
    if value not in walk.converted:
        walk.converted[value] = walk.emit(permuted(value, to_last(rank)))
    return walk.converted[value]


def settle(walk: Walk, value: Laid) -> Expr:
    """Back to the written order; what was just dequantized is transposed while it is still integers."""
    axes = to_first(value.rank)
    made = definition(walk.builder, value.expr)
    if op_name(made) == "qnn.dequantize" and "input_axis" not in attrs_of(made):
        q = walk.emit(permuted(made.args[0], axes), source_of(made))
        return walk.emit(Call(made.op, [q, *made.args[1:]], made.attrs), source_of(made))
    return walk.emit(permuted(value.expr, axes), source_of(made))


def permuted(expr: Expr, axes: list[int]) -> Expr:
    """permute_dims, or a reshape where only axes of length one change places."""
    shape = shape_of(expr) or ()
    order = [a for a in axes if shape[a] != 1]
    if order == sorted(order):
        return relax.op.reshape(expr, [shape[a] for a in axes])
    return relax.op.permute_dims(expr, axes)
