"""Reads chains of float operators that write fake quantization out, from their end to their beginning.

    x / scale, or x * (1 / scale)
    + zero point                              here, or after the rounding
    round, ceil, floor, trunc, floor(. + 0.5), or a cast to integers and back
    clip, or maximum and minimum              before or after the rounding, or of x itself
    - zero point
    * scale, or / (1 / scale)

Whatever of it is there, in any of these places, with its constants on either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    array_of,
    attrs_of,
    dtype_of,
    is_const,
    op_name,
    shape_of,
)
from tvm_qat.passes.match import definition, scalar
from tvm_qat.qnn.arithmetic import INSIDE, QUANTIZE_FORMULAS, RECIPROCAL
from tvm_qat.qparams import STORAGE_RANGE, QParams

Array = npt.NDArray[Any]


@dataclass
class Chain:
    """What has been read of a chain.

    scale : as it stands at the end. data : the input, once the beginning is reached.
    inside : the walk is between the two uses of the zero point, where bounds are those of q.
    shifted_inside : the zero point was added before the rounding.
    half : floor was seen; `+ 0.5` may follow. cast : the integer dtype of a cast that was seen.
    reciprocal : it began with a multiplication.
    """

    scale: Array
    data: Expr = None
    zero_point: float = 0.0
    low: float | None = None
    high: float | None = None
    rounding: str | None = None
    inside: bool = True
    shifted_inside: bool = False
    half: bool = False
    cast: str | None = None
    reciprocal: bool = False

    @property
    def fresh(self) -> bool:
        """Whether nothing but the last multiplication has been read."""
        return self.rounding is None and self.low is None and self.high is None and not self.zero_point


def chain_before(builder: BlockBuilder, last: Expr) -> tuple[Expr, QParams, str] | None:
    """(input, parameters, formula) of the chain that ends with `last`; None if there is none.

    last : a multiplication by the scale, or a division by its reciprocal.
    """
    for operand, other in ((last.args[0], last.args[1]), (last.args[1], last.args[0])):
        if not is_const(other) or (op_name(last) == "relax.divide" and other.same_as(last.args[0])):
            continue
        factor = array_of(other).astype(np.float64)
        if factor.size == 0 or not np.all(factor > 0) or not np.all(np.isfinite(factor)):
            continue
        scale = factor if op_name(last) == "relax.multiply" else 1 / factor
        chain = Chain(scale)
        if _walk_back(builder, operand, chain):
            return _described(builder, chain)
    return None


def _walk_back(builder: BlockBuilder, expr: Expr, chain: Chain) -> bool:
    """Whether the beginning was reached; `chain` then holds all that was read."""
    call = definition(builder, expr)
    name = op_name(call)
    if name in ("relax.multiply", "relax.divide") and (chain.rounding or chain.cast):
        return _begins(call, chain)
    call = _constant_last(call)
    step = _STEPS.get(name)
    return step is not None and step(call, chain) and _walk_back(builder, call.args[0], chain)


def _constant_last(call: Expr) -> Expr:
    """The same call with its constant as the second operand, where the order does not matter."""
    swappable = op_name(call) in ("relax.add", "relax.maximum", "relax.minimum")
    if not swappable or not is_const(call.args[0]):
        return call
    return Call(call.op, [call.args[1], call.args[0]], call.attrs, call.ty_args)


def _begins(call: Expr, chain: Chain) -> bool:
    """x / scale, or x * (1 / scale), with the same scale as at the end. x may be constant too."""
    reciprocal = op_name(call) == "relax.multiply"
    orders = [(0, 1), (1, 0)] if reciprocal else [(0, 1)]
    for data, other in orders:
        if not is_const(call.args[other]):
            continue
        factor = array_of(call.args[other]).astype(np.float64)
        if _same_scale(factor, chain.scale, reciprocal):
            chain.data, chain.reciprocal = call.args[data], reciprocal
            chain.rounding = "floor" if chain.half else chain.rounding or "toward_zero"
            return True
    return False


def _same_scale(factor: Array, scale: Array, reciprocal: bool) -> bool:
    """Equal but for the rounding of a reciprocal; [1] and [] are one shape, and so are [4] and [1, 4]."""
    rank = max(factor.ndim, scale.ndim)
    first, second = (a.reshape((1,) * (rank - a.ndim) + a.shape) for a in (factor, scale))
    if first.shape != second.shape or not np.all(factor > 0):
        return False
    return np.allclose(1 / first if reciprocal else first, second, rtol=1e-6, atol=0)


def _subtract(call: Expr, chain: Chain) -> bool:
    """The zero point leaves: the first step of a chain that has one. Or it joins, negative."""
    value = scalar(call.args[1])
    return value is not None and (_leaves(chain, value) if chain.fresh else _joins(chain, -value))


def _add(call: Expr, chain: Chain) -> bool:
    """The half of floor(x + 0.5), or the zero point."""
    value = scalar(call.args[1])
    if value is None:
        return False
    if chain.half and value == 0.5:
        chain.half, chain.rounding = False, "half_up"
        return True
    return _leaves(chain, -value) if chain.fresh else _joins(chain, value)


def _leaves(chain: Chain, value: float) -> bool:
    chain.zero_point = value
    return True


def _joins(chain: Chain, value: float) -> bool:
    if value != chain.zero_point or not chain.inside:
        return False
    chain.inside, chain.shifted_inside = False, chain.rounding is not None
    return True


def _rounds(rounding: str) -> Any:
    def step(_call: Expr, chain: Chain) -> bool:
        first = chain.rounding is None
        chain.rounding = rounding
        return first

    return step


def _floor(_call: Expr, chain: Chain) -> bool:
    """Walking back, floor(x + 0.5) meets the floor first."""
    first = chain.rounding is None
    chain.rounding, chain.half = "floor", True
    return first


def _cast(call: Expr, chain: Chain) -> bool:
    """To integers and back, after rounding; a cast to integers alone drops fractions."""
    dtype = str(attrs_of(call)["dtype"])
    if dtype.startswith(("float", "bfloat")):
        return dtype_of(call.args[0]).startswith(("int", "uint"))
    if chain.rounding is not None or dtype == "bool":
        return False
    chain.cast = dtype
    # What does not fit the dtype would wrap, unless it was clipped before.
    return not (dtype in STORAGE_RANGE and dtype != "int32") or (chain.low is None and chain.high is None)


def _clip(call: Expr, chain: Chain) -> bool:
    low, high = (getattr(arg, "value", None) for arg in call.args[1:])
    return low is not None and high is not None and _bound(chain, float(low), float(high))


def _maximum(call: Expr, chain: Chain) -> bool:
    return _bound(chain, scalar(call.args[1]), None)


def _minimum(call: Expr, chain: Chain) -> bool:
    return _bound(chain, None, scalar(call.args[1]))


def _relu(_call: Expr, chain: Chain) -> bool:
    return _bound(chain, 0.0, None)


def _bound(chain: Chain, low: float | None, high: float | None) -> bool:
    """Record bounds of q; each once, and not between floor and its half."""
    twice = (low is not None and chain.low is not None) or (high is not None and chain.high is not None)
    if twice or chain.half or (low is None and high is None):
        return False
    shift = 0.0 if chain.inside else chain.zero_point
    chain.low = chain.low if low is None else low + shift
    chain.high = chain.high if high is None else high + shift
    return True


_STEPS = {
    "relax.round": _rounds("half_even"),
    "relax.ceil": _rounds("ceil"),
    "relax.trunc": _rounds("toward_zero"),
    "relax.floor": _floor,
    "relax.astype": _cast,
    "relax.clip": _clip,
    "relax.maximum": _maximum,
    "relax.minimum": _minimum,
    "relax.nn.relu": _relu,
    "relax.subtract": _subtract,
    "relax.add": _add,
}


# ---------------------------------------------------------------- what the chain says


def _described(builder: BlockBuilder, chain: Chain) -> tuple[Expr, QParams, str] | None:
    """The chain as parameters, if its constants describe a grid that can be stored."""
    _bounds_of_input(builder, chain)
    numbers = (chain.low, chain.high, chain.zero_point)
    if any(n is None or not math.isfinite(n) or n != int(n) for n in numbers):
        return None
    if chain.zero_point and chain.inside:
        return None
    low, high, zero_point = (int(n or 0) for n in numbers)
    storage = [d for d, (least, most) in STORAGE_RANGE.items() if least <= low < high <= most]
    axis = _channel_axis(chain.scale, shape_of(chain.data))
    formula = _formula(chain)
    if not storage or storage[0] not in _NARROW or not low <= zero_point <= high or axis == _NO_AXIS:
        return None
    if formula is None or dtype_of(chain.data) != "float32":
        return None
    params = QParams(chain.scale.reshape(-1), np.asarray(zero_point), storage[0], axis, low, high)
    return chain.data, params, formula


def _bounds_of_input(builder: BlockBuilder, chain: Chain) -> None:
    """A range that was clipped before the division (PACT), in steps, if its ends lie on the grid."""
    call = _constant_last(definition(builder, chain.data))
    step = _STEPS.get(op_name(call))
    if chain.scale.size != 1 or step not in (_clip, _maximum, _minimum, _relu):
        return
    real = Chain(chain.scale)
    if not step(call, real):
        return
    for side in ("low", "high"):
        value = getattr(real, side)
        if value is not None and getattr(chain, side) is None:
            steps = float(value / chain.scale.reshape(())) + chain.zero_point
            whole = round(steps) if abs(steps) < 1 << 20 else steps
            setattr(chain, side, float(whole) if abs(steps - whole) < _ON_GRID else steps)


_ON_GRID = 1e-4
"""A bound nearer than that to a step is meant to be it: it was computed in float32."""


def _formula(chain: Chain) -> str | None:
    """The one of QUANTIZE_FORMULAS that computes what the chain computes, to the last bit."""
    rounding = chain.rounding or "half_even"
    inside = bool(chain.zero_point) and chain.shifted_inside
    if chain.reciprocal and inside:
        return "reciprocal_zero_point_inside" if rounding == "half_even" else None
    formula = f"{INSIDE if inside else RECIPROCAL if chain.reciprocal else ''}{rounding}"
    return formula if formula in QUANTIZE_FORMULAS else None


_NARROW = ("int8", "uint8", "int16", "uint16")
_NO_AXIS = -1


def _channel_axis(scale: Array, shape: Any) -> int | None:
    """The axis along which `scale` varies when broadcast to `shape`; None if it does not."""
    if scale.size == 1:
        return None
    rank = len(shape or ())
    axes = [rank - scale.ndim + i for i, size in enumerate(scale.shape) if size > 1]
    return axes[0] if len(axes) == 1 and axes[0] >= 0 else _NO_AXIS
