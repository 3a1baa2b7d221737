"""Walks a function forward while a value may be *carried* in another form than it was written.

Folding carries float tensors as integers with their QParams; layout choice carries NCHW tensors
as NHWC. Both turn a value back (`settle`) only where something needs the written form, so one
operator without a rule costs one conversion and nothing around it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    Function,
    IRModule,
    MatchCast,
    Tuple,
    TupleGetItem,
    Var,
    add_notes,
    bindings_of,
    is_const,
    match_again,
    operands,
    rebuild,
    source_of,
    substitute,
    tvm,
    with_source,
)


@dataclass
class Walk:
    """The state of one walk over one function.

    env : the function's old variables -> an expression of the new function, or a carried value.
    explained : ids of carried values of which a note has said already why they turn back.
    converted : new variables -> their other form, for conversions that a rule asked for.
    source : the source node of the binding being visited.
    """

    builder: BlockBuilder
    settle_value: Callable[[Walk, Any], Expr]
    env: dict[Var, Any] = field(default_factory=dict)
    settled: dict[int, tuple[Any, Expr]] = field(default_factory=dict)
    explained: set[int] = field(default_factory=set)
    converted: dict[Var, Expr] = field(default_factory=dict)
    source: str | None = None
    notes: list[dict[str, str]] = field(default_factory=list)

    def lookup(self, expr: Expr) -> Any:
        """What an old operand has become: an expression or a carried value."""
        if isinstance(expr, Var):
            return self.env.get(expr, expr)
        if isinstance(expr, TupleGetItem):
            whole = self.lookup(expr.tuple_value)
            return whole[expr.index] if isinstance(whole, tuple) else TupleGetItem(whole, expr.index)
        if isinstance(expr, Tuple):
            return tuple(self.lookup(part) for part in expr.fields)
        return expr

    def settle(self, value: Any) -> Expr:
        """`value` as an expression in the written form; converted once however often it is used."""
        if isinstance(value, tuple):
            return Tuple([self.settle(part) for part in value])
        if not hasattr(value, "carried"):
            return value
        if id(value) not in self.settled:
            self.settled[id(value)] = (value, self.settle_value(self, value))
        return self.settled[id(value)][1]

    def emit(self, expr: Expr, source: str | None = None) -> Expr:
        """Bind `expr` under the current source node's name."""
        if isinstance(expr, Var) or is_const(expr):
            return expr
        return self.builder.emit(with_source(expr, source or self.source))

    def settle_operands(self, expr: Expr) -> Expr:
        """`expr` with every operand in its written form."""
        settled = {var: self.settle(value) for var, value in _operands(self, expr)}
        return substitute(expr, settled)

    def note(self, kind: str, code: str, text: str, node: str | None = None) -> None:
        self.notes.append({"kind": kind, "code": code, "node": node or self.source or "", "text": text})


def _operands(walk: Walk, expr: Expr) -> list[tuple[Var, Any]]:
    if isinstance(expr, Var):
        return [(expr, walk.lookup(expr))]
    return [pair for child in operands(expr) for pair in _operands(walk, child)]


Visit = Callable[[Walk, Expr], Any]
"""(walk, old expression) -> an expression, a carried value, or None: settle and keep as it is."""


def carry(mod: IRModule, visit: Visit, settle: Callable[[Walk, Any], Expr]) -> IRModule:
    """Rebuild every graph-level function of `mod`; carried results are settled at its end."""
    notes: list[dict[str, str]] = []

    def make_body(func: Function, builder: BlockBuilder) -> Expr:
        walk = Walk(builder, settle, notes=notes)
        for binding in bindings_of(func):
            walk.source = source_of(binding.value)
            value = _visit_binding(walk, visit, binding)
            if binding.var.same_as(func.body.body):
                source, walk.source = walk.source, OUTPUT
                return builder.emit_output(with_source(walk.settle(value), source), binding.var.name)
            walk.env[binding.var] = walk.emit(value) if isinstance(value, tvm.ir.Expr) else value
        walk.source = OUTPUT
        return builder.emit_output(walk.settle_operands(func.body.body))

    return add_notes(rebuild(mod, make_body), notes)


OUTPUT = "the model's output"
"""Stands for the source node where a value leaves the function."""


def _visit_binding(walk: Walk, visit: Visit, binding: Any) -> Any:
    expr = binding.value
    if isinstance(binding, MatchCast):
        return match_again(walk.builder, binding, walk.settle_operands(expr))
    if isinstance(expr, Var | Tuple | TupleGetItem):
        return walk.lookup(expr)
    value = visit(walk, expr)
    return walk.settle_operands(expr) if value is None else value
