"""Joins a sum of products with what follows it into one kernel.

Before:                                        After:
    c = qnn.conv2d(x, w)                           y = fused_conv2d(x, skip)     # Composite
    b = add(c, bias)
    r = qnn.requantize(b)                          def fused_conv2d(x, skip):
    y = qnn.add(r, skip)                               c = ...; b = ...; r = ...; return qnn.add(r, skip)

The chain grows while its result has a single use, or several that lead into one value again (a gelu
written x * (1 + erf(x / sqrt 2)) / 2), by an elementwise operator whose other operand
is a constant or a tensor of the same shape (the residual). A residual that was dequantized for
this alone is read as the integers it was. Constants stay inside the composite; tensors computed at
run time are its parameters. A product of batches (attention) reads operands that were transposed for
it where they lie. The last node's source name stays on the call.

Kept on purpose: other results that are used twice are results of their kernel; data movement and
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
    dtype_of,
    is_const,
    op_name,
    operands,
    permutation_of,
    rebuild,
    same_shape,
    shape_of,
    static_shape,
    uses_of,
)
from tvm_qat.qnn.composite import with_composites
from tvm_qat.qnn.params import params_of
from tvm_qat.qnn.table import OPS

_FOLLOWERS = frozenset(
    {
        "qnn.requantize", "qnn.dequantize", "qnn.quantize", "qnn.lut", "qnn.add", "qnn.subtract",
        "qnn.multiply", "qnn.divide", "qnn.minimum", "qnn.maximum", "relax.add", "relax.clip",
        "relax.left_shift", "relax.maximum", "relax.minimum",
    }
)  # fmt: skip
_FLOAT_FOLLOWERS = frozenset(
    {
        "relax.subtract", "relax.multiply", "relax.divide", "relax.erf", "relax.tanh", "relax.sigmoid",
        "relax.nn.gelu", "relax.nn.gelu_tanh", "relax.nn.silu", "relax.nn.relu", "relax.nn.leakyrelu",
    }
)  # fmt: skip
"""Joined where they compute float32, beside those above."""

_MOST_TERMS = 48
"""Of a formula in which values that are used twice are written twice."""


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
    names = [op_name(member.value) for member in group.members]
    return f"fused_{next(name for name in names if name.startswith('qnn.')).removeprefix('qnn.')}"


@dataclass(frozen=True)
class _Graph:
    """uses, bound : of every variable. place : its position among the bindings."""

    uses: dict[Var, Any]
    bound: dict[Var, Any]
    place: dict[Var, int]

    def readers(self, var: Var) -> set[Var | None]:
        return {user for user, _ in self.uses.get(var, [])}


def _groups(func: Function) -> dict[Var, _Group]:
    """Every variable that belongs to a kernel of at least two operators -> its group."""
    bindings = list(bindings_of(func))
    place = {binding.var: i for i, binding in enumerate(bindings)}
    graph = _Graph(uses_of(func), {b.var: b for b in bindings}, place)
    groups: dict[Var, _Group] = {}
    for binding in bindings:
        name = op_name(binding.value)
        if name not in OPS or OPS[name].kind != "linear" or isinstance(binding, MatchCast):
            continue
        group = _Group([*_transpositions(binding.value, graph), binding])
        while followers := _followers(group.members[-1].var, graph):
            if any(follower.var in groups for follower in followers):
                break
            group.members += followers
        if len(group.members) > 1:
            groups.update({member.var: group for member in group.members})
    return groups


def _transpositions(call: Expr, graph: _Graph) -> list[Any]:
    """What transposes the operands of a product of batches for it alone, and leaves the axis of the sum
    or, on the right, that of the columns last.
    """
    batches = shape_of(call.args[1]) or ()
    if op_name(call) != "qnn.batch_matmul" or all(size == 1 for size in batches[:-2]):
        return []
    made = [graph.bound.get(o) for o in call.args[:2] if isinstance(o, Var) and len(graph.uses[o]) == 1]
    return [b for b in made if b is not None and _reads_rows(b.value, right=b.var.same_as(call.args[1]))]


def _reads_rows(made: Expr, right: bool) -> bool:
    if op_name(made) != "relax.permute_dims" or static_shape(made) is None:
        return False
    return permutation_of(made).index(len(permutation_of(made)) - 1) >= len(permutation_of(made)) - 1 - right


def _followers(last: Var, graph: _Graph) -> list[Any]:
    """The bindings that may join after `last`, in order; only the last of them is read by others."""
    if len(graph.uses.get(last, [])) != 1:
        return _branches(last, graph)
    (user,) = graph.readers(last)
    if user is None or not _may_follow(graph.bound[user], last):
        return []
    follower = graph.bound[user]
    if not all(_joins(o, follower.value, last) for o in operands(follower.value)):
        return []
    return [*_dequantized(follower, last, graph), follower]


def _branches(last: Var, graph: _Graph) -> list[Any]:
    """What several readers of `last` compute, up to the value that all of it leads into."""
    waiting, members = graph.readers(last), []
    terms = {last: 1}
    if len(waiting) < 2:
        return []
    while None not in waiting:
        binding = graph.bound[min((v for v in waiting if v is not None), key=graph.place.__getitem__)]
        inside = [o for o in operands(binding.value) if not is_const(o)]
        if not _may_follow(binding, last) or not all(isinstance(o, Var) and o in terms for o in inside):
            return []
        terms[binding.var] = 1 + sum(terms[o] for o in inside)
        members.append(binding)
        waiting.discard(binding.var)
        if not waiting:
            return members if terms[binding.var] <= _MOST_TERMS else []
        waiting |= graph.readers(binding.var)
    return []


def _may_follow(binding: Any, last: Var) -> bool:
    value, name = binding.value, op_name(binding.value)
    known = name in _FOLLOWERS or (name in _FLOAT_FOLLOWERS and dtype_of(value) == "float32")
    return known and not isinstance(binding, MatchCast) and same_shape(shape_of(value), shape_of(last))


def _dequantized(follower: Any, data: Var, graph: _Graph) -> list[Any]:
    """The binding that dequantizes the other operand, where nothing else reads its result."""
    others = [o for o in operands(follower.value) if isinstance(o, Var) and not o.same_as(data)]
    made = [graph.bound[o] for o in others if o in graph.bound and len(graph.uses[o]) == 1]
    return [b for b in made if op_name(b.value) == "qnn.dequantize" and _of_activation(b)]


def _of_activation(dequantize: Any) -> bool:
    """Whether it reads a tensor of bytes with parameters known now: sums have a kernel of their own."""
    data = dequantize.value.args[0]
    return (
        isinstance(data, Var)
        and dtype_of(data) in ("int8", "uint8")
        and bool(params_of(dequantize.value, "input"))
    )


def _joins(operand: Expr, call: Expr, data: Var) -> bool:
    """Whether an operand is the chain itself, a constant, a number, or a residual."""
    if isinstance(operand, Var):
        return operand.same_as(data) or same_shape(shape_of(operand), shape_of(call))
    return is_const(operand) or not isinstance(operand, Call)
