"""What one kernel computes: an anchor and the elementwise calls that follow it.

A composite function of the `fuse` pass and a single loose call look alike from here on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tvm_qat.ir import (
    Call,
    Expr,
    Function,
    Shape,
    Var,
    array_of,
    bindings_of,
    is_const,
    op_name,
    permutation_of,
    shape_of_type,
    source_of,
    substitute,
)
from tvm_qat.kernels.operands import Operands
from tvm_qat.kernels.pointwise import data_arguments, term_of
from tvm_qat.kernels.terms import Term, constant
from tvm_qat.qnn.arithmetic import Array
from tvm_qat.qnn.table import OPS

_ANCHORED = ("linear", "reduction", "movement")


@dataclass(frozen=True)
class Fused:
    """calls : by the variable each is bound to, operands being the graph's own expressions.
    result : the last of these variables. out : its type in the graph. moved : transpositions of the
    anchor's operands, which it reads where they lie.
    """

    calls: Mapping[Var, Expr]
    result: Var
    out: Any
    moved: Mapping[Var, Expr] = field(default_factory=dict)

    def origin(self, operand: Expr) -> tuple[Expr, list[int] | None]:
        """The tensor that an operand of the anchor is read from; its axes in the operand's order."""
        made = self.moved.get(operand) if isinstance(operand, Var) else None
        return (operand, None) if made is None else (made.args[0], permutation_of(made))

    @property
    def anchor(self) -> Expr:
        return next(iter(self.calls.values()))

    @property
    def op(self) -> str:
        return op_name(self.anchor)

    @property
    def source(self) -> str | None:
        return source_of(self.anchor)

    @property
    def shape(self) -> Shape:
        shape = shape_of_type(self.out)
        assert shape is not None, "kernels need results of known rank"
        return shape

    @property
    def dtype(self) -> str:
        return str(self.out.dtype)

    @property
    def name(self) -> str:
        """Names of the operators in order, for PrimFuncs."""
        return "_".join(op_name(call).split(".")[-1] for call in self.calls.values())

    @property
    def anchored(self) -> bool:
        """Whether the anchor has a kernel of its own, to which the other calls are the epilogue."""
        return self.op in OPS and OPS[self.op].kind in _ANCHORED

    def split_bias(self, axis: int) -> tuple[Array | None, Var]:
        """The int32 constant added to the anchor along `axis`, and the variable that holds the sum."""
        carried, *rest = self.calls
        if not rest or op_name(self.calls[rest[0]]) != "relax.add":
            return None, carried
        lhs, rhs = self.calls[rest[0]].args
        bias = rhs if lhs.same_as(carried) else lhs
        used_later = any(carried.same_as(a) for v in rest[1:] for a in self.calls[v].args)
        if used_later or not is_const(bias) or not carried.ty.ndim:
            return None, carried
        values = array_of(bias)
        aligned = values.reshape((1,) * (carried.ty.ndim - values.ndim) + values.shape)
        others = [size for i, size in enumerate(aligned.shape) if i != axis]
        if any(size != 1 for size in others):
            return None, carried
        return aligned.reshape(-1), rest[0]

    def value_of(self, expr: Expr, operands: Operands) -> Term:
        """The value of an operand of one of the calls."""
        return self._term(expr, operands, None)

    def term(self, operands: Operands, carried: Var | None = None) -> Term:
        """The value of an element of the result.

        Where the anchor has a kernel of its own, `site.anchor` is the value of `carried` (the
        anchor's variable by default).
        """
        if carried is None and self.anchored:
            carried = next(iter(self.calls))
        return self._term(self.result, operands, carried)

    def _term(self, expr: Expr, operands: Operands, carried: Var | None) -> Term:
        if carried is not None and expr.same_as(carried):
            return lambda site: site.anchor
        if is_const(expr):
            return constant(array_of(expr), operands)
        if isinstance(expr, Var) and expr in self.calls:
            call = self.calls[expr]
            inputs = [self._term(arg, operands, carried) for arg in call.args[: data_arguments(call)]]
            return term_of(call, inputs, operands)
        operand = operands.tensor(expr)
        return lambda site: site.element(operand)


def fused_of_function(func: Function, args: list[Expr], out: Any) -> Fused:
    """A call of a composite function with `args`; `out` is the call's type in the graph."""
    actual = dict(zip(func.params, args, strict=True))
    calls: dict[Var, Expr] = {}
    alias: dict[Var, Expr] = dict(actual)
    for binding in bindings_of(func):
        value = substitute(binding.value, alias)
        if isinstance(value, Call):
            calls[binding.var] = value
        else:
            alias[binding.var] = value
    result = substitute(func.body.body, alias)
    moved = _before_the_sum(calls)
    return Fused({v: call for v, call in calls.items() if v not in moved}, result, out, moved)


def _before_the_sum(calls: Mapping[Var, Expr]) -> dict[Var, Expr]:
    names = [op_name(call) for call in calls.values()]
    sums = [i for i, name in enumerate(names) if name in OPS and OPS[name].kind == "linear"]
    return dict(list(calls.items())[: sums[0]]) if sums else {}


def fused_of_call(var: Var, call: Expr) -> Fused:
    """A loose call, bound to `var`."""
    return Fused({var: call}, var, var.ty)
