"""Gives a Pending operator its grid: what happens when its result meets a quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.fixed_point import NEAREST, ROUNDINGS
from tvm_qat.ir import Expr, array_of, attrs_of, const, is_const, op_name, shape_of
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold import functions, linear, litert, movement
from tvm_qat.passes.fold.pointwise import is_const_operand
from tvm_qat.passes.fold.values import Carried, Pending, Skip, narrowed, plain
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qnn.arithmetic import Array
from tvm_qat.qparams import STORAGE_RANGE, QParams

FIXED_POINT_BITS = 31


def requantized(walk: Walk, value: Any, target: QParams, rounding: str, formula: str) -> Expr | Skip:
    """The integers of a carried or pending value on the grid `target`.

    rounding : of requantize (fixed_point.REQUANTIZE_ROUNDINGS).
    formula : of the quantize that asked (arithmetic.QUANTIZE_FORMULAS), for tables and constants.
    """
    cut = narrowed(target, value.low, value.high, formula) if value.clamped else target
    if cut is None:
        return Skip("off-grid", "its clip has no exact bound on the grid of its result")
    kept = _kept_rounding(rounding, formula, cut)
    if isinstance(kept, Skip):
        return kept
    rounding = kept
    if isinstance(value, Carried):
        if None not in (value.params.axis, cut.axis) and value.params.axis != cut.axis:
            return Skip("per-channel", "its input and its result are quantized along different axes")
        return _requantize(walk, value, cut, rounding)
    return _resolve(walk, value, cut, rounding, formula)


def _kept_rounding(rounding: str, formula: str, target: QParams) -> str | Skip:
    """How a requantize rounds: as its producer does, unless the caller chose LiteRT's integers for it.

    A rounding that looks at the sign, of a value that contains the zero point, is not one of the
    value itself.
    """
    producer = formula.removeprefix(arithmetic.INSIDE).removeprefix(arithmetic.RECIPROCAL)
    if producer not in ROUNDINGS or (producer in NEAREST and rounding != "half_even"):
        return rounding
    signed = producer in ("toward_zero", "away_from_zero", "sign")
    if signed and formula.startswith(arithmetic.INSIDE) and np.any(target.zero_point):
        return Skip("no-rule", f"its result is rounded by {producer} together with a zero point")
    return producer


def _requantize(walk: Walk, value: Carried, target: QParams, rounding: str) -> Expr:
    rounding = value.exact if rounding == "tflite" else rounding
    if is_const(value.q):
        return const(arithmetic.requantize(array_of(value.q), value.params, target, rounding))
    if value.params.same_grid(target) and rounding != "sign":
        inside = target.range[0] <= value.params.range[0] and value.params.range[1] <= target.range[1]
        if inside:
            return value.q
    # A carried accumulator keeps its own place; the requantize belongs to the node that ends it.
    return walk.emit(build.requantize(value.q, value.params, target, rounding), value.source)


def _resolve(walk: Walk, value: Pending, target: QParams, rounding: str, formula: str) -> Expr | Skip:
    name = op_name(value.call)
    if name in movement.MOVES:
        inner = requantized(walk, value.operands[0], target, rounding, formula)
        if isinstance(inner, Skip) or target.per_channel:
            return (
                inner
                if isinstance(inner, Skip)
                else Skip("per-channel", "its result is quantized per channel")
            )
        return movement.apply_move(walk, value.call, inner, value.source)
    table = _table(value, target, rounding, formula)
    if table is not None:
        source, entries = table
        walk.note(linear.GRIDS, "", linear.grids_note(source.params, target), value.source)
        return walk.emit(build.lut(source.q, entries), value.source)
    if target.per_channel:
        return Skip("per-channel", "its result is quantized per channel")
    if rounding in ROUNDINGS and rounding not in NEAREST and name not in ("relax.add", "relax.subtract"):
        return Skip("no-rule", f"its result is rounded by {rounding}, and not to the nearest step")
    if rounding == "tflite" and name == "relax.nn.leakyrelu":
        made = litert.leaky_relu(walk, value, target)
        if made is not None:
            return made
    if name not in _RESOLVERS:
        return Skip("width", f"{name} is a table only of one 8-bit tensor with scalar constants")
    return _RESOLVERS[name](walk, value, target, rounding)


# ---------------------------------------------------------------- tables


def _table(value: Pending, target: QParams, rounding: str, formula: str) -> tuple[Carried, Array] | None:
    """(source, 256 entries) if the whole pending expression is a function of one 8-bit tensor."""
    source = _only_source(value)
    if source is None or source.params.dtype not in ("int8", "uint8") or source.params.per_channel:
        return None
    if source.shape != value.shape or target.per_channel:
        return None
    exact = litert.table_of(value, source, target) if rounding == "tflite" else None
    if exact is not None:
        return source, exact
    low, high = STORAGE_RANGE[source.params.dtype]
    q = np.arange(low, high + 1).astype(source.params.dtype)
    real = _evaluate(value, source, arithmetic.dequantize(q, source.params))
    return source, arithmetic.quantize(real, target, formula)


def _only_source(value: Any) -> Carried | None:
    """The one carried tensor that a tree of elementwise functions reads; None if there is none."""
    if isinstance(value, Carried):
        return value
    name = op_name(value.call)
    if name not in (*functions.UNARY, *functions.WITH_ATTRIBUTES, *functions.BINARY, "relax.nn.prelu"):
        return None
    found: list[Carried] = []
    for operand in value.operands:
        number = linear.constant_value(operand)
        if number is not None and number.size == 1:
            continue
        source = _only_source(operand) if number is None else None
        if source is None:
            return None
        found.append(source)
    same = all(s.q.same_as(found[0].q) and s.params == found[0].params for s in found)
    return found[0] if found and same else None


def _evaluate(value: Any, source: Carried, real: Array) -> Array:
    """The float value of the tree for every integer of its source."""
    number = linear.constant_value(value)
    if number is not None:
        return number.reshape(()).astype(np.float32)
    if isinstance(value, Carried):
        result = real
    else:
        operands = [_evaluate(operand, source, real) for operand in value.operands]
        name = op_name(value.call)
        if name == "relax.nn.prelu":
            result = functions.apply(lambda x, slope: np.where(x >= 0, x, x * slope), *operands)
        else:
            known = functions.UNARY | functions.WITH_ATTRIBUTES | functions.BINARY
            attrs = attrs_of(value.call) if name in functions.WITH_ATTRIBUTES else {}
            result = functions.apply(known[name], *operands, **attrs)
    return np.clip(result, np.float32(value.low), np.float32(value.high))


# ---------------------------------------------------------------- operators of the dialect


def _carried(walk: Walk, value: Any, why: str = "one of its inputs") -> Carried | Skip:
    """An operand of a resolver with its clamp applied."""
    if isinstance(value, Pending):
        return Skip("not-quantized", f"{why} is not quantized")
    return plain(walk, value)


def _fixed(operand: Expr) -> Carried | Skip:
    """A float constant as 31-bit integers with its own scale, a power of two.

    A float32 is kept exactly if it is no smaller than 2^-7 of the largest.
    """
    real = array_of(operand).astype(np.float64)
    largest = float(np.abs(real).max(initial=0.0)) or 1.0
    if not np.isfinite(largest):
        return Skip("no-rule", "a constant operand is not finite")
    scale = 2.0 ** (np.ceil(np.log2(largest)) - FIXED_POINT_BITS + 1)
    return Carried(const(np.rint(real / scale).astype(np.int32)), QParams(scale, dtype="int32"))


def _binary(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    sides: list[Carried] = []
    for operand in value.operands:
        side = _fixed(operand) if is_const_operand(operand) else _carried(walk, operand)
        if isinstance(side, Skip):
            return side
        if side.params.per_channel and len(side.shape or ()) != len(value.shape or ()):
            return Skip("per-channel", "an input with parameters per channel is broadcast")
        sides.append(side)
    x, y = sides
    name = op_name(value.call).removeprefix("relax.")
    if name == "divide" and is_const(y.q) and not np.all(array_of(y.q)):
        return Skip("no-rule", "it divides by a constant zero")
    kept = rounding in ROUNDINGS and rounding not in NEAREST and name in ("add", "subtract")
    exact = rounding if kept else litert.of_two(name, x.params, y.params, target, rounding)
    return walk.emit(build.elementwise(name, x.q, y.q, x.params, y.params, target, exact), value.source)


def _concatenate(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    """Constant parts are quantized at compile time; pending parts are given the result's grid."""
    parts: list[Expr] = []
    inputs: list[QParams] = []
    for operand in value.operands[0]:
        if is_const_operand(operand):
            parts.append(const(arithmetic.quantize(array_of(operand), target)))
            inputs.append(target)
            continue
        if isinstance(operand, Pending) or operand.params.per_channel or operand.clamped:
            q = requantized(walk, operand, target, rounding, "half_even")
            if isinstance(q, Skip):
                return q
            parts.append(q)
            inputs.append(target)
            continue
        parts.append(operand.q)
        inputs.append(operand.params)
    axis = attrs_of(value.call)["axis"] % len(value.shape or ())
    return walk.emit(build.concatenate(parts, inputs, target, axis), value.source)


def _avg_pool(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    x = _carried(walk, value.operands[0], "its input")
    if isinstance(x, Skip) or x.params.per_channel:
        return x if isinstance(x, Skip) else Skip("per-channel", "its input is quantized per channel")
    attrs = attrs_of(value.call)
    if int(np.prod(attrs["pool_size"])) * _reach(x) > linear.INT32_MAX:
        return Skip("overflow", "its sum could overflow 32 bits")
    names = ("pool_size", "strides", "padding", "dilation", "layout")
    pooled = build.avg_pool(
        x.q, x.params, target, count_include_pad=bool(attrs["count_include_pad"]),
        ceil_mode=bool(attrs["ceil_mode"]), rounding=litert.of_average(x.params, target, attrs, rounding),
        **{n: attrs[n] for n in names},
    )  # fmt: skip
    return walk.emit(pooled, value.source)


def _adaptive_avg_pool(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    """To one element: the mean over the spatial axes."""
    x = _carried(walk, value.operands[0], "its input")
    if isinstance(x, Skip) or x.params.per_channel:
        return x if isinstance(x, Skip) else Skip("per-channel", "its input is quantized per channel")
    layout = attrs_of(value.call)["layout"]
    axes = [i for i, axis in enumerate(layout) if axis not in "NC"]
    if any((value.shape or ())[axis] != 1 for axis in axes):
        return Skip("no-rule", "adaptive pooling to more than one element has no integer rule")
    return _mean_over(walk, value, x, target, axes, True, rounding)


def _mean(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    x = _carried(walk, value.operands[0], "its input")
    if isinstance(x, Skip) or x.params.per_channel:
        return x if isinstance(x, Skip) else Skip("per-channel", "its input is quantized per channel")
    attrs = attrs_of(value.call)
    rank = len(x.shape or ())
    axes = [a % rank for a in (attrs["axis"] if attrs["axis"] is not None else range(rank))]
    return _mean_over(walk, value, x, target, axes, bool(attrs["keepdims"]), rounding)


def _mean_over(
    walk: Walk, value: Pending, x: Carried, target: QParams, axes: list[int], keepdims: bool, rounding: str
) -> Expr | Skip:
    shape = x.shape or ()
    if not all(isinstance(shape[a], int) for a in axes):
        return Skip("run-time", "it runs over an axis whose length is known only at run time")
    count = int(np.prod([shape[a] for a in axes]))
    if count * _reach(x) > linear.INT32_MAX:
        return Skip("overflow", "its sum could overflow 32 bits")
    # A sum is a mean of values that are `count` times as large.
    whole = op_name(value.call) == "relax.sum"
    source = x.params.with_(scale=x.params.scale * count) if whole else x.params
    exact = litert.of_mean(source, target, whole, rounding)
    return walk.emit(build.mean(x.q, source, target, sorted(axes), keepdims, exact), value.source)


def _reach(x: Carried) -> int:
    """Greatest |q - zero_point| of a tensor."""
    return linear.greatest(x.params) if x.bound is None else x.bound


def _softmax(walk: Walk, value: Pending, target: QParams, rounding: str) -> Expr | Skip:
    x = _carried(walk, value.operands[0], "its input")
    if isinstance(x, Skip):
        return x
    if x.params.dtype not in ("int8", "uint8") or x.params.per_channel:
        return Skip("width", "softmax in integers needs an 8-bit input, quantized per tensor")
    shape = shape_of(x.q) or ()
    axis = attrs_of(value.call)["axis"] % len(shape)
    if not isinstance(shape[axis], int) or shape[axis] > 1 << 16:
        return Skip("run-time", "softmax in integers needs a known length of at most 65,536")
    exact = litert.of_softmax(x.params, target, axis == len(shape) - 1, rounding)
    return walk.emit(build.softmax(x.q, x.params, target, axis, exact), value.source)


_RESOLVERS: dict[str, Callable[[Walk, Pending, QParams, str], Expr | Skip]] = {
    **dict.fromkeys(
        (f"relax.{n}" for n in ("add", "subtract", "multiply", "divide", "minimum", "maximum")), _binary
    ),
    "relax.concat": _concatenate,
    "relax.nn.avg_pool1d": _avg_pool,
    "relax.nn.avg_pool2d": _avg_pool,
    "relax.nn.avg_pool3d": _avg_pool,
    "relax.nn.adaptive_avg_pool1d": _adaptive_avg_pool,
    "relax.nn.adaptive_avg_pool2d": _adaptive_avg_pool,
    "relax.nn.adaptive_avg_pool3d": _adaptive_avg_pool,
    "relax.mean": _mean,
    "relax.sum": _mean,
    "relax.nn.softmax": _softmax,
}
