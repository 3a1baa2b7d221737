"""Composite functions: groups of calls that one kernel will run.

    a = op1(x); b = op2(a, y)        ->        b = composite(x, y)

The fuse pass makes them around sums of products, the kernels around float islands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    MatchCast,
    TensorType,
    Var,
    bindings_of,
    define,
    dtype_of,
    match_again,
    operands,
    same_shape,
    shape_of,
    source_of,
    substitute,
    tvm,
    with_source,
)

COMPOSITE = "qnn.fused"
_PLACE = "qat.place"
"""Tells composites apart that compute the same for different nodes: builders join equal functions."""


def with_composites(
    func: Function, builder: BlockBuilder, groups: Mapping[Var, tuple[str, Sequence[Any]]]
) -> Expr:
    """The body of `func` with each group replaced by a call of a new private function.

    groups : by every member's variable, the function's name and the group's bindings in order; all
    but the last are used inside the group only. Constants stay inside the composite; tensors
    computed at run time are its parameters. The last node's source name stays on the call.
    """
    env: dict[Var, Expr] = {}
    for place, binding in enumerate(bindings_of(func)):
        name, members = groups.get(binding.var, ("", ()))
        if members and not members[-1].var.same_as(binding.var):
            continue
        value = _call(builder, name, members, env, place) if members else substitute(binding.value, env)
        value = with_source(value, source_of(binding.value))
        if isinstance(binding, MatchCast):
            value = match_again(builder, binding, value)
        if binding.var.same_as(func.body.body):
            return builder.emit_output(value, binding.var.name)
        env[binding.var] = builder.emit(value, binding.var.name)
    return builder.emit_output(substitute(func.body.body, env))


def _call(builder: BlockBuilder, name: str, members: Sequence[Any], env: dict[Var, Expr], place: int) -> Expr:
    inside = {member.var for member in members}
    outer: list[Var] = []
    for member in members:
        for operand in operands(member.value):
            if isinstance(operand, Var) and operand not in inside and operand not in outer:
                outer.append(operand)
    arguments = [env.get(var, var) for var in outer]
    composite = _composite(members, dict(zip(outer, _parameters(outer), strict=True)), place)
    return Call(builder.add_func(composite, name), arguments)


def _parameters(outer: list[Var]) -> list[Var]:
    """Parameters for `outer` whose symbolic dimensions belong to the composite alone.

    A dimension such as h // 2 becomes one variable: nothing inside could define its h.
    """
    known: list[tuple[Any, Any]] = []
    return [Var(f"x{i}", _own_type(var, known)) for i, var in enumerate(outer)]


def _own_type(var: Var, known: list[tuple[Any, Any]]) -> Any:
    shape = shape_of(var)
    return var.ty if shape is None else TensorType([_own_dimension(d, known) for d in shape], dtype_of(var))


def _own_dimension(dim: Any, known: list[tuple[Any, Any]]) -> Any:
    """An integer, or the composite's variable for `dim`; `known` holds the pairs made so far."""
    if isinstance(dim, int):
        return dim
    for theirs, own in known:
        if same_shape((dim,), (theirs,)):
            return own
    known.append((dim, tvm.tirx.Var(f"d{len(known)}", "int64")))
    return known[-1][1]


def _composite(members: Sequence[Any], env: dict[Var, Expr], place: int) -> Function:
    builder = BlockBuilder()
    params = list(env.values())

    def body() -> Expr:
        for member in members[:-1]:
            env[member.var] = builder.emit(substitute(member.value, env))
        return builder.emit_output(substitute(members[-1].value, env))

    attrs = {"Composite": COMPOSITE, _PLACE: place}
    define(builder, "composite", params, body, attrs=attrs, private=True)
    return builder.get()["composite"]
