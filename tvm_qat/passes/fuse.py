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
    Var,
    bindings_of,
    is_const,
    op_name,
    operands,
    rebuild,
    same_shape,
    shape_of,
    uses_of,
)
from tvm_qat.qnn.composite import with_composites
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
    names = {var: (_name(group), group.members) for var, group in _groups(func).items()}
    return with_composites(func, builder, names)


def _name(group: _Group) -> str:
    return f"fused_{op_name(group.members[0].value).removeprefix('qnn.')}"


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
