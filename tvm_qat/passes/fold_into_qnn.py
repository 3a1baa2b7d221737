"""Folds dequantize -> float operator -> quantize into integer operators of the dialect.

Before:                                   After:
    x = dequantize(xq, sx)                    c = qnn.conv2d(xq, wq, zx, zw)      # int32
    w = dequantize(wq, sw)                    b = add(c, bias / (sx * sw))
    c = conv2d(x, w)                          r = qnn.requantize(b, sx * sw -> so, [relu in range])
    r = quantize(relu(c + bias), so)

One walk forward. A dequantized tensor is *carried* as integers with their QParams; an operator
with a rule keeps it carried, or waits as Pending for the quantize that gives its result a grid.
Only where an operator has no rule, or its rule declines, is a tensor turned back to float: one
island, and a note that says why. Missing quantization of a bias is no obstacle.

Kept on purpose: a quantize of a float input and a dequantize of an output, the model's border;
parameters computed at run time; nodes that the caller wants in float (see keep_float).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from tvm_qat.ir import Call, Expr, IRModule, array_of, const, dtype_of, is_const, op_name, shape_of
from tvm_qat.marks import kept_in_float
from tvm_qat.passes.carry import OUTPUT, Walk, carry
from tvm_qat.passes.fold import linear, movement, pointwise
from tvm_qat.passes.fold.resolve import requantized
from tvm_qat.passes.fold.values import Carried, Pending, Skip, clamped_float, dequantized
from tvm_qat.passes.keep_float import BY_REQUEST, check_kept
from tvm_qat.qnn import arithmetic
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import STORAGE_RANGE

RULES = linear.RULES | movement.RULES | pointwise.RULES
_WHOLE_BIASES = RULES | {"relax.add": partial(pointwise.binary, fine_bias=False)}
"""For LiteRT's arithmetic, which adds a bias as whole steps of its sum."""


def fold_into_qnn(mod: IRModule, rounding: str = "half_even") -> IRModule:
    """rounding : of every requantize, one of fixed_point.REQUANTIZE_ROUNDINGS."""
    kept = kept_in_float(mod)
    folded = carry(mod, partial(_visit, rounding=rounding, kept=kept), _settle)
    check_kept(folded)
    return folded


def _visit(walk: Walk, expr: Expr, *, rounding: str, kept: frozenset[str]) -> Any:
    name = op_name(expr)
    if name == "qnn.dequantize":
        return _dequantize(walk, expr)
    if name == "qnn.quantize":
        return _quantize(walk, expr, rounding)
    if walk.source in kept and name.startswith("relax."):
        if is_float(expr):
            walk.note("float", BY_REQUEST, "kept in float by request")
        return None
    if name not in RULES:
        _note_without_rule(walk, expr)
        return None
    rules = RULES if rounding == "half_even" else _WHOLE_BIASES
    result = rules[name](walk, expr, [walk.lookup(arg) for arg in expr.args])
    if isinstance(result, Skip):
        if is_float(expr):
            walk.note("float", result.code, f"{_short(name)}: {result.reason}")
        return None
    return result


def is_float(expr: Expr) -> bool:
    """Whether the (first) result is a float tensor: only those could have been integers."""
    ty = expr.ty
    first = ty.fields[0] if hasattr(ty, "fields") and len(ty.fields) else ty
    return str(getattr(first, "dtype", "")).startswith(("float", "bfloat"))


def _note_without_rule(walk: Walk, expr: Expr) -> None:
    name = op_name(expr)
    if name.startswith("relax.") and is_float(expr):
        walk.note("float", "no-rule", f"{_short(name)}: it has no integer rule")


def _short(name: str) -> str:
    return name.removeprefix("relax.").removeprefix("nn.")


def _dequantize(walk: Walk, call: Expr) -> Any:
    params = params_of(call, "input")
    q = walk.lookup(call.args[0])
    if params is None or hasattr(q, "carried") or dtype_of(q) not in STORAGE_RANGE:
        return None
    params = params.check_axis(shape_of(q) or ())
    bound = _stored_bound(q) if params.dtype == "int32" and not params.zero_point.any() else None
    return Carried(q, params, bound=bound, source=walk.source, out_dtype=call.attrs["out_dtype"])


def _stored_bound(q: Expr) -> int | None:
    return int(np.abs(array_of(q).astype(np.int64)).max(initial=0)) if is_const(q) else None


def _quantize(walk: Walk, call: Expr, rounding: str) -> Any:
    params, formula = params_of(call, "output"), call.attrs["rounding"]
    value = walk.lookup(call.args[0])
    if params is None:
        return None
    params = params.check_axis(shape_of(call) or ())
    if isinstance(value, Carried | Pending):
        result = requantized(walk, value, params, rounding, formula)
        if not isinstance(result, Skip):
            return result
        _explain(walk, value, result)
        return None
    if not isinstance(value, tuple) and is_const(value):
        return const(arithmetic.quantize(array_of(value), params, formula))
    return None


def _explain(walk: Walk, value: Carried | Pending, why: Skip) -> None:
    """Note why `value` cannot be quantized in integers, at the operator that is the cause."""
    while isinstance(value, Pending) and op_name(value.call) in movement.MOVES:
        walk.explained.add(id(value))
        text = f"{_short(op_name(value.call))}: its input stays in float"
        walk.note("float", "not-quantized", text, value.source)
        value = value.operands[0]
    walk.explained.add(id(value))
    if isinstance(value, Pending):
        walk.note("float", why.code, f"{_short(op_name(value.call))}: {why.reason}", value.source)
    else:
        name = _clamp(value) if value.clamped else "quantize"
        walk.note("float", why.code, f"{name}: {why.reason}", value.clamped_by)


def _settle(walk: Walk, value: Carried | Pending) -> Expr:
    """Back to float, because the node that is being visited needs it there."""
    if isinstance(value, Pending):
        real = _in_float(walk, value)
    elif value.unrounded is not None and value.unrounded.belongs_to(value):
        walk.explained.add(id(value.unrounded.sum))
        real = _in_float(walk, value.unrounded.sum)
    else:
        real = walk.emit(dequantized(value), value.source)
    if value.clamped:
        if id(value) not in walk.explained:
            _note_float_user(walk, _clamp(value), value.clamped_by)
        real = walk.emit(clamped_float(value, real), value.clamped_by)
    return real


def _clamp(value: Carried | Pending) -> str:
    return "relu" if (value.low, value.high) == (0, math.inf) else "clip"


def _in_float(walk: Walk, value: Pending) -> Expr:
    """A pending operator whose result is not quantized runs in float."""
    if id(value) not in walk.explained:
        _note_float_user(walk, _short(op_name(value.call)), value.source)
    user, walk.source = walk.source, value.source or walk.source
    args = [walk.settle(operand) for operand in value.operands]
    walk.source = user
    rest = [walk.settle_operands(arg) for arg in list(value.call.args)[len(args) :]]
    in_float = Call(value.call.op, [*args, *rest], value.call.attrs, value.call.ty_args)
    return walk.emit(in_float, value.source)


def _note_float_user(walk: Walk, name: str, node: str | None) -> None:
    """The operator `name` of a node runs in float because of what is being visited."""
    if walk.source == OUTPUT:
        text = f"{name}: its result is not quantized: it is the model's output"
        walk.note("float", "model-output", text, node)
    else:
        user = f"`{walk.source}`" if walk.source else "an unnamed node"
        walk.note("float", "result-not-quantized", f"{name}: its result is used in float by {user}", node)
