"""Rules for operators on values one by one: they wait for the quantize of their result."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, is_const, op_name, shape_of
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold import linear
from tvm_qat.passes.fold.functions import BINARY, UNARY, WITH_ATTRIBUTES
from tvm_qat.passes.fold.values import Carried, Pending, Skip, clamp
from tvm_qat.passes.match import channel_vector, scalar


def relu(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    return _bounded(walk, operands[0], 0.0, math.inf)


def clip(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    low, high = (_number(arg) for arg in call.args[1:])
    if low is None or high is None:
        return Skip("run-time", "its bounds are computed at run time")
    return _bounded(walk, operands[0], low, high)


def _number(expr: Expr) -> float | None:
    value = getattr(expr, "value", None)
    return float(value) if isinstance(value, int | float) else scalar(expr)


def _bounded(walk: Walk, value: Any, low: float, high: float) -> Any:
    if not isinstance(value, Carried | Pending):
        return Skip("not-quantized", "its input is not quantized")
    if low > high:
        return Skip("no-rule", "its lower bound exceeds its upper bound")
    return clamp(value, low, high, walk.source)


def unary(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    if not isinstance(operands[0], Carried | Pending):
        return Skip("not-quantized", "its input is not quantized")
    return Pending(call, tuple(operands[:1]), source=walk.source)


def binary(walk: Walk, call: Expr, operands: list[Any], fine_bias: bool = True) -> Any:
    """A bias, a rescaling, a clamp by a constant, or a Pending operation. fine_bias : see linear.bias."""
    left, right = operands
    for value, other in ((left, right), (right, left)):
        joined = _absorb(walk, call, value, other, value is right, fine_bias)
        if joined is not None:
            return joined
    if not all(isinstance(value, Carried | Pending) or is_const_operand(value) for value in operands):
        some = any(isinstance(value, Carried | Pending) for value in operands)
        return Skip("not-quantized", f"{'one of its inputs is' if some else 'its inputs are'} not quantized")
    if all(is_const_operand(value) for value in operands):
        return None
    return Pending(call, (left, right), source=walk.source)


def is_const_operand(value: Any) -> bool:
    return not hasattr(value, "carried") and not isinstance(value, tuple) and is_const(value)


def _absorb(walk: Walk, call: Expr, value: Any, other: Any, swapped: bool, fine_bias: bool) -> Any:
    """What a constant operand can do to a carried tensor without arithmetic at run time."""
    name = op_name(call)
    if not isinstance(value, Carried | Pending):
        return None
    number = scalar(other) if is_const_operand(other) else None
    grows = len(shape_of(other) or ()) > len(value.shape or ()) if is_const_operand(other) else True
    if name == "relax.maximum" and number is not None and not grows:
        return _bounded(walk, value, number, math.inf)
    if name == "relax.minimum" and number is not None and not grows:
        return _bounded(walk, value, -math.inf, number)
    if not isinstance(value, Carried):
        return None
    if name == "relax.add":
        return linear.bias(walk, call, value, other, fine_bias)
    if name == "relax.multiply":
        return _rescaled(walk, value, other, 1)
    return _rescaled(walk, value, other, -1) if name == "relax.divide" and not swapped else None


def _rescaled(walk: Walk, value: Carried, other: Any, power: int) -> Carried | None:
    """A tensor times positive constants along its channels: the scale changes, no number.

    An 8-bit tensor times one number is left to the tables, which hold the whole expression.
    """
    real = linear.constant_value(other)
    rank = len(value.shape or ())
    if real is None or value.clamped or not np.all(real > 0) or not np.all(np.isfinite(real)):
        return None
    if value.params.dtype != "int32" and real.size == 1 and not is_const(value.q):
        return None
    axis = value.params.axis if value.params.axis is not None else _varying_axis(real, rank)
    vector = channel_vector(real, axis, rank)
    if vector is None or real.ndim > rank:
        return None
    if vector.ndim and vector.size != (value.shape or ())[axis]:
        return None
    scale = value.params.scale * vector**power
    params = value.params.with_(scale=scale, axis=axis)
    return replace(value, params=params, source=value.source or walk.source)


def _varying_axis(values: Any, rank: int) -> int:
    axes = [rank - values.ndim + i for i, size in enumerate(values.shape) if size > 1]
    return axes[0] if len(axes) == 1 else rank - 1


def prelu(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Slopes of one element make a table; per channel it stays in float."""
    if not isinstance(operands[0], Carried | Pending):
        return Skip("not-quantized", "its input is not quantized")
    slope = linear.constant_value(operands[1])
    if slope is None or slope.size != 1:
        return Skip("per-channel", "a slope per channel has no integer rule")
    return Pending(call, tuple(operands), source=walk.source)


def waits(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """avg_pool, mean, softmax: computed in integers once the grid of the result is known."""
    if not isinstance(operands[0], Carried | Pending):
        return Skip("not-quantized", "its input is not quantized")
    return Pending(call, tuple(operands[:1]), source=walk.source)


RULES = {
    "relax.nn.relu": relu,
    "relax.clip": clip,
    **dict.fromkeys((*UNARY, *WITH_ATTRIBUTES), unary),
    **dict.fromkeys(BINARY, binary),
    "relax.nn.prelu": prelu,
    **dict.fromkeys(
        (
            "relax.nn.avg_pool1d",
            "relax.nn.avg_pool2d",
            "relax.nn.avg_pool3d",
            "relax.nn.adaptive_avg_pool1d",
            "relax.nn.adaptive_avg_pool2d",
            "relax.nn.adaptive_avg_pool3d",
            "relax.mean",
            "relax.sum",
            "relax.nn.softmax",
        ),
        waits,
    ),
}
