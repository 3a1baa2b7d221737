"""Joins a sum of products with what follows it into one kernel.

Before:                                        After:
    c = qnn.conv2d(x, w)                           y = fused_conv2d(x, skip)     # Composite
    b = add(c, bias)
    r = qnn.requantize(b)                          def fused_conv2d(x, skip):
    y = qnn.add(r, skip)                               c = ...; b = ...; r = ...; return qnn.add(r, skip)

The chain grows while its result has a single use, by an elementwise operator whose other operand
is a constant or a tensor of the same shape (the residual). Constants stay inside the composite;
tensors computed at run time are its parameters. The last node's source name stays on the call.

Kept on purpose: a result that is used twice is a result of its kernel; data movement and
reductions end a chain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    MatchCast,
    TensorType,
    Var,
    bindings_of,
    dtype_of,
    is_const,
    match_again,
    op_name,
    operands,
    rebuild,
    same_shape,
    shape_of,
    source_of,
    substitute,
    tvm,
    uses_of,
    with_source,
)
from tvm_qat.qnn.table import OPS

_FOLLOWERS = frozenset(
    {
        "qnn.requantize", "qnn.dequantize", "qnn.quantize", "qnn.lut", "qnn.add", "qnn.subtract",
        "qnn.multiply", "qnn.divide", "qnn.minimum", "qnn.maximum", "relax.add", "relax.clip",
        "relax.maximum", "relax.minimum",
    }
)  # fmt: skip


def fuse(mod: IRModule) -> IRModule:
    return rebuild(mod, _fuse_function)


@dataclass
class _Group:
    """The bindings of one kernel, in order."""

    members: list[Any] = field(default_factory=list)


def _fuse_function(func: Function, builder: BlockBuilder) -> Expr:
    groups = _groups(func)
    env: dict[Var, Expr] = {}
    for binding in bindings_of(func):
        group = groups.get(binding.var)
        if group is not None and not group.members[-1].var.same_as(binding.var):
            continue
        value = _call_composite(builder, group, env) if group else substitute(binding.value, env)
        value = with_source(value, source_of(binding.value))
        if isinstance(binding, MatchCast):
            value = match_again(builder, binding, value)
        if binding.var.same_as(func.body.body):
            return builder.emit_output(value, binding.var.name)
        env[binding.var] = builder.emit(value, binding.var.name)
    return builder.emit_output(substitute(func.body.body, env))


def _groups(func: Function) -> dict[Var, _Group]:
    """Every variable that belongs to a kernel of at least two operators -> its group."""
    uses, bound = uses_of(func), {b.var: b for b in bindings_of(func)}
    groups: dict[Var, _Group] = {}
    for binding in bindings_of(func):
        name = op_name(binding.value)
        if name not in OPS or OPS[name].kind != "linear" or isinstance(binding, MatchCast):
            continue
        group = _Group([binding])
        while (follower := _follower(group.members[-1], uses, bound)) is not None:
            if follower.var in groups:
                break
            group.members.append(follower)
        if len(group.members) > 1:
            groups.update({member.var: group for member in group.members})
    return groups


def _follower(last: Any, uses: dict[Var, Any], bound: dict[Var, Any]) -> Any:
    """The binding that may join after `last`, or None."""
    users = uses.get(last.var, [])
    if len(users) != 1 or users[0][0] is None:
        return None
    user, value = users[0]
    if op_name(value) not in _FOLLOWERS or shape_of(value) is None:
        return None
    if not same_shape(shape_of(value), shape_of(last.var)) or not all(
        _joins(o, value, last.var) for o in operands(value)
    ):
        return None
    return None if isinstance(bound[user], MatchCast) else bound[user]


def _joins(operand: Expr, call: Expr, data: Var) -> bool:
    """Whether an operand is the chain itself, a constant, a number, or a residual."""
    if isinstance(operand, Var):
        return operand.same_as(data) or same_shape(shape_of(operand), shape_of(call))
    return is_const(operand) or not isinstance(operand, Call)


def _call_composite(builder: BlockBuilder, group: _Group, env: dict[Var, Expr]) -> Expr:
    """A call of a new private function that holds the group's bindings."""
    inside = {member.var for member in group.members}
    outer: list[Var] = []
    for member in group.members:
        for operand in operands(member.value):
            if isinstance(operand, Var) and operand not in inside and operand not in outer:
                outer.append(operand)
    arguments = [env.get(var, var) for var in outer]
    anchor = op_name(group.members[0].value).removeprefix("qnn.")
    composite = _composite(group, dict(zip(outer, _parameters(outer), strict=True)))
    return Call(builder.add_func(composite, f"fused_{anchor}"), arguments)


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


def _composite(group: _Group, env: dict[Var, Expr]) -> Function:
    builder = BlockBuilder()
    with builder.function("composite", list(env.values()), attrs={"Composite": "qnn.fused"}, private=True):
        with builder.dataflow():
            for member in group.members[:-1]:
                env[member.var] = builder.emit(substitute(member.value, env))
            result = builder.emit_output(substitute(group.members[-1].value, env))
        builder.emit_func_output(result)
    return builder.get()["composite"]
