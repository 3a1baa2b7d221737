"""Removes requantizes that change nothing, and moves the others to where they cost nothing.

Before:                                        After:
    q = qnn.quantize(qnn.dequantize(x, p), p)      q = x
    q = qnn.quantize(qnn.dequantize(x, a), b)      q = qnn.requantize(x, a, b)
    y = qnn.requantize(x, p, p)                    y = x
    y = qnn.requantize(max_pool2d(c))              y = max_pool2d(qnn.requantize(c))
    q = qnn.quantize(reshape(qnn.dequantize(c)))   q = reshape(qnn.requantize(c))
    q = qnn.quantize(permute_dims(f))              q = permute_dims(qnn.quantize(f))    # f float
    y = qnn.concatenate(a, b; pa, pb -> p)         y = concat(qnn.requantize(a), b)      # b on p

A requantize next to the sum it rescales becomes that kernel's epilogue (`fuse`), so it is moved
up through data movement and out of concatenations, into producers that have no other use.
A positive scale keeps order, so max_pool and max may be passed too.

Kept on purpose: requantize after requantize onto different grids, since training saw both
roundings; concatenation of parts that others use, where copying and requantizing are one step.
"""

from __future__ import annotations

from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    Tuple,
    Var,
    add_notes,
    op_name,
    relax,
    rewrite,
    shape_of,
    source_of,
    with_source,
)
from tvm_qat.marks import kept_in_float
from tvm_qat.passes.fold.movement import MOVES
from tvm_qat.passes.match import Uses, definition
from tvm_qat.qnn import build
from tvm_qat.qnn.params import concat_params, params_of
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams

_REORDERS = frozenset(
    {
        "relax.permute_dims", "relax.reshape", "relax.flatten", "relax.nn.batch_flatten",
        "relax.expand_dims", "relax.squeeze",
    }
)  # fmt: skip
"""Data movement after which every element is there once."""


def cancel_requantize_pairs(mod: IRModule) -> IRModule:
    notes: list[dict[str, str]] = []
    kept = kept_in_float(mod)
    cancelled = rewrite(mod, lambda func: _Visitor(func, notes, kept).visit)
    return add_notes(relax.transform.EliminateCommonSubexpr()(cancelled), notes)


class _Visitor:
    """The rules, with the number of uses of each variable of one function. kept : nodes not to move past."""

    def __init__(self, func: Function, notes: list[dict[str, str]], kept: frozenset[str]) -> None:
        self.uses = Uses(func)
        self.notes = notes
        self.kept = kept

    def visit(self, builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
        self.uses.see(var, value)
        name = op_name(value)
        if name == "qnn.quantize":
            return self._quantize(builder, value)
        if name == "qnn.requantize":
            return self._requantize(builder, value)
        if name == "qnn.concatenate":
            return self._concatenate(builder, value)
        return None

    def _quantize(self, builder: BlockBuilder, call: Expr) -> Expr | None:
        target = params_of(call, "output")
        moves, data = self._movement(builder, call.args[0])
        made = definition(builder, data)
        if target is None:
            return None
        if op_name(made) != "qnn.dequantize":
            return self._before_movement(builder, call, moves, data, target)
        source = params_of(made, "input")
        if source is None or (None not in (source.axis, target.axis) and source.axis != target.axis):
            return None
        if moves and not (self.uses.once(data) and self._may_pass(builder, made.args[0], target)):
            return None
        self._note(call, "dequantize and quantize")
        early = _moved(made.args[0], source, target)
        return _again(builder, moves, early, source_of(call)) if moves else early

    def _before_movement(
        self, builder: BlockBuilder, call: Expr, moves: list[Expr], data: Expr, target: QParams
    ) -> Expr | None:
        """quantize(move(x)) -> move(quantize(x)), where x has no other reader: bytes move not floats."""
        computed = isinstance(definition(builder, data), Call) and self.uses.once(data)
        if not moves or not computed or target.per_channel:
            return None
        if any(op_name(made) not in _REORDERS for made in moves):
            return None
        early = Call(call.op, [data, *call.args[1:]], call.attrs, call.ty_args)
        return _again(builder, moves, early, source_of(call))

    def _requantize(self, builder: BlockBuilder, call: Expr) -> Expr | None:
        source, target = params_of(call, "input"), params_of(call, "output")
        if source is None or target is None:
            return None
        if _is_identity(source, target):
            self._note(call, "requantize")
            return call.args[0]
        return self._above_movement(builder, call, source, target)

    def _above_movement(
        self, builder: BlockBuilder, call: Expr, source: QParams, target: QParams
    ) -> Expr | None:
        """requantize(move(x)) -> move(requantize(x)), where x is a sum with no other use."""
        moves, data = self._movement(builder, call.args[0])
        if not moves or not self._may_pass(builder, data, target):
            return None
        for made in moves:
            if source.axis is None:
                break
            axis = _axis_before(made, source.axis)
            if axis is None:
                return None
            source = source.with_(axis=axis)
        early = build.requantize(data, source, target, str(call.attrs["rounding"]))
        return _again(builder, moves, early, source_of(call))

    def _movement(self, builder: BlockBuilder, expr: Expr) -> tuple[list[Expr], Expr]:
        """The data movement that made `expr`, last first, each step for one reader; what it moved."""
        moves: list[Expr] = []
        while op_name(made := definition(builder, expr)) in MOVES and self.uses.once(expr):
            if source_of(made) in self.kept:
                break
            moves.append(made)
            expr = made.args[0]
        return moves, expr

    def _may_pass(self, builder: BlockBuilder, data: Expr, target: QParams) -> bool:
        return not target.per_channel and self.uses.once(data) and _is_sum(builder, data)

    def _concatenate(self, builder: BlockBuilder, call: Expr) -> Expr | None:
        output = params_of(call, "output")
        if output is None:
            return None
        parts, inputs = list(call.args[0].fields), concat_params(call)
        if not all(_is_identity(p, output) or self.uses.once(q) for q, p in zip(parts, inputs, strict=True)):
            return None
        source = source_of(call)
        joined = [
            q
            if _is_identity(p, output)
            else builder.emit(with_source(build.requantize(q, p, output), source))
            for q, p in zip(parts, inputs, strict=True)
        ]
        return relax.op.concat(Tuple(joined), axis=int(call.attrs["axis"]))

    def _note(self, call: Expr, what: str) -> None:
        self.notes.append({"kind": "cancelled", "node": source_of(call) or "", "text": what})


def _again(builder: BlockBuilder, moves: list[Expr], data: Expr, source: str | None) -> Expr:
    """`data`, a step of node `source`, moved as `moves` (last first) did; the last is left to bind."""
    for made in reversed(moves):
        bound = builder.emit(with_source(data, source))
        data = Call(made.op, [bound, *made.args[1:]], made.attrs, made.ty_args, span=made.span)
    return data


def _moved(q: Expr, source: QParams, target: QParams) -> Expr:
    return q if _is_identity(source, target) else build.requantize(q, source, target)


def _is_identity(source: QParams, target: QParams) -> bool:
    """Whether a requantize between the two would return its input."""
    inside = target.range[0] <= source.range[0] and source.range[1] <= target.range[1]
    return source.same_grid(target) and inside


def _is_sum(builder: BlockBuilder, expr: Expr) -> bool:
    """Whether `expr` is the int32 result of a linear operator, with or without its bias."""
    made: Any = definition(builder, expr)
    while op_name(made) in ("relax.add", "relax.left_shift"):
        made = definition(builder, made.args[0])
    name = op_name(made)
    return name in OPS and OPS[name].kind == "linear"


def _axis_before(move: Expr, axis: int) -> int | None:
    """The channel axis of the moved tensor's input, given that of its result."""
    rank = len(shape_of(move.args[0]) or ())
    found = [a for a in range(rank) if MOVES[op_name(move)](move, a) == axis]
    return found[0] if len(found) == 1 else None
