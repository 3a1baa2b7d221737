"""Removes what only training needed: it computes nothing at inference.

Before:                                        After:
    a = nn.dropout(x, rate)[0]                     b = nn.relu(x)
    b = nn.relu(a)
    c = nn.batch_norm(b, ..., training=True)[0]    c = nn.batch_norm(b, ..., training=False)[0]
    d = reshape(c, shape_of(c)); e = astype(d, dtype_of(d))

A train-mode batch norm normalizes by its batch; at inference its moving statistics hold, and
their updates (outputs 1 and 2) are dropped with the last use. Every removal is noted.
Kept on purpose: a dropout mask that something reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    IRModule,
    Tuple,
    TupleGetItem,
    Var,
    add_notes,
    attrs_of,
    dtype_of,
    op_name,
    relax,
    rewrite,
    same_shape,
    shape_of,
    source_of,
)
from tvm_qat.passes.match import definition


def prune_training_remnants(mod: IRModule) -> IRModule:
    notes: list[dict[str, str]] = []

    def visit(builder: BlockBuilder, _var: Var, value: Expr) -> Expr | None:
        pruned = _pruned(builder, value)
        if pruned is not None:
            notes.append({"kind": "pruned", "node": source_of(value) or "", "text": _what(builder, value)})
        return pruned

    return add_notes(rewrite(mod, lambda _func: visit), notes)


def _what(builder: BlockBuilder, value: Expr) -> str:
    return op_name(value) or op_name(definition(builder, value.tuple_value))


def _pruned(builder: BlockBuilder, value: Expr) -> Expr | None:
    """What `value` is at inference, or None if it is that already."""
    if isinstance(value, TupleGetItem):
        made = definition(builder, value.tuple_value)
        return made.args[0] if op_name(made) == "relax.nn.dropout" and value.index == 0 else None
    rule = _RULES.get(op_name(value))
    return rule(value) if rule else None


def _batch_norm(call: Expr) -> Expr | None:
    attrs = attrs_of(call)
    if not attrs["training"]:
        return None
    names = ("axis", "epsilon", "center", "scale")
    return relax.op.nn.batch_norm(*call.args, training=False, **{n: attrs[n] for n in names})


def _no_op_cast(call: Expr) -> Expr | None:
    return call.args[0] if dtype_of(call.args[0]) == attrs_of(call)["dtype"] else None


def _no_op_reshape(call: Expr) -> Expr | None:
    """Equal known shapes; symbolic dimensions must be the same ones."""
    return call.args[0] if same_shape(shape_of(call.args[0]), shape_of(call)) else None


def _no_op_transpose(call: Expr) -> Expr | None:
    axes = attrs_of(call)["axes"]
    return call.args[0] if axes is not None and list(axes) == sorted(axes) else None


def _single_concat(call: Expr) -> Expr | None:
    parts = call.args[0]
    return parts.fields[0] if isinstance(parts, Tuple) and len(parts.fields) == 1 else None


def _unbounded_clip(call: Expr) -> Expr | None:
    low, high = (getattr(arg, "value", None) for arg in call.args[1:])
    return call.args[0] if (low, high) == (-math.inf, math.inf) else None


def _stopped_gradient(call: Expr) -> Expr | None:
    return call.args[0]


_RULES: dict[str, Callable[[Call], Expr | None]] = {
    "relax.nn.batch_norm": _batch_norm,
    "relax.astype": _no_op_cast,
    "relax.reshape": _no_op_reshape,
    "relax.permute_dims": _no_op_transpose,
    "relax.concat": _single_concat,
    "relax.clip": _unbounded_clip,
    "relax.grad.no_grad": _stopped_gradient,
    "relax.grad.start_checkpoint": _stopped_gradient,
    "relax.grad.end_checkpoint": _stopped_gradient,
}
