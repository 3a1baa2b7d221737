"""Joins neighbouring elementwise calls around at most one operator of rows or one transposition.

    a = qnn.dequantize(c)                          def island(c):
    b = erf(a)                                         a = ...; b = ...; d = ...
    d = multiply(a, b)                    ->           return qnn.quantize(d)
    e = qnn.quantize(d)                            e = island(c)

    s = softmax(multiply(x, 0.125))       ->       q = island(x)
    q = qnn.quantize(s)

A call joins the group of its users if all of them are in one group and work on its shape, so a
group has one result and nothing is computed for it outside. Groups have at most `MOST_TERMS` terms,
counted with repetition, since a value used twice is written twice into the formula, and at most
`MOST_QUANTIZES` quantize: each writes its operand several times, and what one quantized function
reads of another multiplies that (the gates and the cell of an LSTM kept LLVM busy without end).
A function (exp, tanh, ...) does not join a group that reads it by another one: TVM expands the names
of one formula in those of the other, and tanh(log(1 + exp(x))) compiled for minutes.

max_pool2d and a lone transposition become groups of their own.

Kept on purpose: other dtypes than float32 and quantized integers, operators that move data, rows
of unknown length, and dialect calls that nothing joins. TVM compiles the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    Function,
    IRModule,
    MatchCast,
    Var,
    bindings_of,
    dtype_of,
    is_graph,
    op_name,
    operands,
    rebuild,
    same_shape,
    shape_of,
    uses_of,
)
from tvm_qat.kernels.float_terms import FLOAT_TERMS, FUNCTIONS
from tvm_qat.kernels.permuted import PERMUTE, is_permutation
from tvm_qat.kernels.pointwise import data_arguments
from tvm_qat.kernels.pooling import is_max_pool
from tvm_qat.kernels.rows import is_row_operator
from tvm_qat.qnn.composite import with_composites
from tvm_qat.qnn.params import params_of
from tvm_qat.qnn.table import OPS

MOST_TERMS = 48
MOST_QUANTIZES = 1
_QUANTIZE = "qnn.quantize"
_ELEMENTWISE_KINDS = ("pointwise", "boundary")


@dataclass
class _Group:
    """members : bindings, last first. size : terms with repetition. special : the one that needs loops
    of its own, a transposition or an operator of rows. in_function : those that a function reads, and
    functions.
    """

    members: list[Any] = field(default_factory=list)
    repeated: dict[Var, int] = field(default_factory=dict)
    in_function: set[Var] = field(default_factory=set)
    special: Var | None = None

    @property
    def size(self) -> int:
        return sum(self.repeated.values())

    @property
    def quantizes(self) -> int:
        return sum(op_name(member.value) == _QUANTIZE for member in self.members)

    def add(self, binding: Any, times: int, users: list[Any]) -> None:
        self.members.append(binding)
        self.repeated[binding.var] = times
        if op_name(binding.value) in FUNCTIONS or self.is_read_by_function(users):
            self.in_function.add(binding.var)
        if _is_special(binding.value):
            self.special = binding.var

    def is_read_by_function(self, users: list[Any]) -> bool:
        return any(user in self.in_function for user, _ in users)


def gather_islands(mod: IRModule) -> IRModule:
    if not any(_groups(func) for _, func in mod.functions_items() if is_graph(func)):
        return mod
    return rebuild(mod, _gather)


def _gather(func: Function, builder: BlockBuilder) -> Expr:
    return with_composites(func, builder, _groups(func))


def _groups(func: Function) -> dict[Var, tuple[str, list[Any]]]:
    bindings, uses = list(bindings_of(func)), uses_of(func)
    group_of: dict[Var, _Group] = {}
    groups: list[_Group] = []
    for binding in reversed(bindings):
        if not _may_join(binding):
            continue
        users = uses.get(binding.var, [])
        group = _group_of_users(binding, users, group_of)
        if group is None:
            group = _Group()
            groups.append(group)
            group.add(binding, 1, [])
        else:
            group.add(binding, _repetitions(binding, users, group), users)
        group_of[binding.var] = group
    kept = [group for group in groups if _worthwhile(group)]
    kept += [_Group([b]) for b in bindings if is_max_pool(b.value) and not isinstance(b, MatchCast)]
    return {member.var: ("island", group.members[::-1]) for group in kept for member in group.members}


def _may_join(binding: Any) -> bool:
    call = binding.value
    if isinstance(binding, MatchCast) or shape_of(call) is None:
        return False
    name = op_name(call)
    if name in OPS:
        return OPS[name].kind in _ELEMENTWISE_KINDS and _known_parameters(call)
    if is_permutation(call):
        return True
    if name not in FLOAT_TERMS and not is_row_operator(call):
        return False
    return dtype_of(call) == "float32" and all(
        dtype_of(operand) in ("float32", "") and (shape_of(operand) is not None or dtype_of(operand) == "")
        for operand in operands(call)
    )


def _known_parameters(call: Expr) -> bool:
    """Calls whose parameters the graph computes stay alone: they have a form of their own."""
    roles = OPS[op_name(call)].args
    return all(params_of(call, arg.removesuffix("_scale")) for arg in roles if arg.endswith("_scale"))


def _group_of_users(binding: Any, users: list[Any], group_of: dict[Var, _Group]) -> _Group | None:
    """The one group that all users belong to, if the call may join it."""
    found: _Group | None = None
    for user, value in users:
        group = group_of.get(user) if user is not None else None
        if group is None or (found is not None and group is not found):
            return None
        if not _fits(binding.var, value):
            return None
        found = group
    if found is None or (found.special is not None and _is_special(binding.value)):
        return None
    if op_name(binding.value) in FUNCTIONS and found.is_read_by_function(users):
        return None
    if op_name(binding.value) == _QUANTIZE and found.quantizes >= MOST_QUANTIZES:
        return None
    return found if found.size + _repetitions(binding, users, found) <= MOST_TERMS else None


def _fits(var: Var, user: Expr) -> bool:
    """Whether a user reads `var` element by element: as data, in its own shape."""
    if op_name(user) == PERMUTE:
        return True
    count = 1 if is_row_operator(user) else data_arguments(user)
    others = any(operand.same_as(var) for operand in operands(user)[count:])
    return not others and same_shape(shape_of(var), shape_of(user))


def _is_special(call: Expr) -> bool:
    return is_row_operator(call) or is_permutation(call)


def _repetitions(binding: Any, users: list[Any], group: _Group) -> int:
    return sum(group.repeated[user] for user, _ in users)


def _worthwhile(group: _Group) -> bool:
    alone = op_name(group.members[0].value)
    return len(group.members) > 1 or alone not in OPS
