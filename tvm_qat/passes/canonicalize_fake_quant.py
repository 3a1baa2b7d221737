"""Every spelling of fake quantization becomes the dialect's.

Before:                                           After:
    q = relax.quantize(x, s, z)                       q = qnn.quantize(x, s, z)
    y = relax.dequantize(q, s, z)                     y = qnn.dequantize(q, s, z)

    a = round(x / s)                                  y = qnn.fake_quantize(x, s, 0, [lo, hi])
    y = clip(a, lo, hi) * s

The second form is a chain that trainers write out: divide by the scale (or multiply by its
reciprocal), optionally add a zero point, round (round, or floor(x + 0.5)), clip before or after
rounding, optionally subtract the zero point, multiply by the scale. It is recognized by its
structure and constants, from whomever it comes. Scales may be per channel.

Kept on purpose: chains whose constants do not fit together (a different scale on both ends,
bounds that are no whole numbers, more than 16 bits): they are arithmetic of the user's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    IRModule,
    Var,
    array_of,
    attrs_of,
    dtype_of,
    is_const,
    op_name,
    rewrite,
    shape_of,
)
from tvm_qat.passes.match import definition, scalar
from tvm_qat.qnn import build
from tvm_qat.qparams import STORAGE_RANGE, QParams

Array = npt.NDArray[Any]


def canonicalize_fake_quant(mod: IRModule) -> IRModule:
    return rewrite(mod, lambda _func: _visit)


def _visit(builder: BlockBuilder, _var: Var, value: Expr) -> Expr | None:
    name = op_name(value)
    if name == "relax.quantize":
        return _quantize(value)
    if name == "relax.dequantize":
        return _dequantize(value)
    if name in ("relax.multiply", "relax.divide"):
        return _chain(builder, value)
    return None


# ---------------------------------------------------------------- TVM's own operators


def _quantize(call: Expr) -> Expr | None:
    params = _params(call, str(attrs_of(call)["out_dtype"]))
    return None if params is None else build.quantize(call.args[0], params)


def _dequantize(call: Expr) -> Expr | None:
    params = _params(call, dtype_of(call.args[0]))
    return None if params is None else build.dequantize(call.args[0], params, dtype_of(call))


def _params(call: Expr, dtype: str) -> QParams | None:
    """None if they are computed at run time, or if the dtype is no integer (float8)."""
    scale, zero_point = call.args[1:3]
    if not (is_const(scale) and is_const(zero_point)) or dtype not in STORAGE_RANGE:
        return None
    params = QParams(array_of(scale), array_of(zero_point), dtype, attrs_of(call)["axis"])
    return params.check_axis(shape_of(call.args[0]) or ())


# ---------------------------------------------------------------- decomposed chains


@dataclass
class _Chain:
    """What has been read of a chain, from its end to its beginning.

    inside : the walk is between the two uses of the zero point, where bounds are those of q.
    half : floor was seen, so `+ 0.5` must follow.
    """

    scale: Array
    zero_point: float = 0.0
    low: float | None = None
    high: float | None = None
    rounding: str | None = None
    inside: bool = True
    half: bool = False


def _chain(builder: BlockBuilder, last: Expr) -> Expr | None:
    """`last` is the multiplication by the scale, or the division by its reciprocal."""
    for operand, other in ((last.args[0], last.args[1]), (last.args[1], last.args[0])):
        if not is_const(other) or (op_name(last) == "relax.divide" and other.same_as(last.args[0])):
            continue
        factor = array_of(other).astype(np.float64)
        if factor.size == 0 or not np.all(factor > 0) or not np.all(np.isfinite(factor)):
            continue
        scale = factor if op_name(last) == "relax.multiply" else 1 / factor
        found = _walk_back(builder, operand, _Chain(scale))
        if found is not None:
            return _fake_quantize(*found)
    return None


def _walk_back(builder: BlockBuilder, expr: Expr, chain: _Chain) -> tuple[Expr, _Chain, bool] | None:
    """(input, chain, whether it began with a multiplication) once the beginning is reached."""
    call = _constant_last(definition(builder, expr))
    name = op_name(call)
    if name in ("relax.multiply", "relax.divide") and chain.rounding and not chain.half:
        return _beginning(call, chain)
    step = _STEPS.get(name)
    if step is None or not step(call, chain):
        return None
    return _walk_back(builder, call.args[0], chain)


def _constant_last(call: Expr) -> Expr:
    """The same call with its constant as the second operand, where the order does not matter."""
    swappable = op_name(call) in ("relax.add", "relax.multiply", "relax.maximum", "relax.minimum")
    if not swappable or not is_const(call.args[0]):
        return call
    return Call(call.op, [call.args[1], call.args[0]], call.attrs, call.ty_args)


def _beginning(call: Expr, chain: _Chain) -> tuple[Expr, _Chain, bool] | None:
    """x / scale, or x * (1 / scale), with the same scale as at the end."""
    operand, other = call.args
    if not is_const(other):
        return None
    reciprocal = op_name(call) == "relax.multiply"
    factor = array_of(other).astype(np.float64)
    if factor.shape != chain.scale.shape:
        return None
    scale = 1 / factor if reciprocal else factor
    return (operand, chain, reciprocal) if np.allclose(scale, chain.scale, rtol=1e-6, atol=0) else None


def _subtract(call: Expr, chain: _Chain) -> bool:
    """The zero point leaves: the first step of a chain that has one."""
    value = scalar(call.args[1])
    fresh = chain.rounding is None and chain.low is None and chain.high is None and not chain.zero_point
    if value is None or not fresh:
        return False
    chain.zero_point = value
    return True


def _add(call: Expr, chain: _Chain) -> bool:
    """The half of floor(x + 0.5), or the zero point.

    Inside the rounding an odd zero point would turn ties to even into ties to odd.
    """
    value = scalar(call.args[1])
    if chain.half and value == 0.5:
        chain.half = False
        return True
    tie_moves = chain.rounding == "half_even" and chain.zero_point % 2 != 0
    if value is None or value != chain.zero_point or not chain.inside or tie_moves:
        return False
    chain.inside = False
    return True


def _round(_call: Expr, chain: _Chain) -> bool:
    fresh = chain.rounding is None
    chain.rounding = "half_even"
    return fresh


def _floor(_call: Expr, chain: _Chain) -> bool:
    """floor(x + 0.5), walking back, meets the floor first."""
    fresh = chain.rounding is None
    chain.rounding, chain.half = "half_up", True
    return fresh


def _clip(call: Expr, chain: _Chain) -> bool:
    low, high = (getattr(arg, "value", None) for arg in call.args[1:])
    return low is not None and high is not None and _bound(chain, float(low), float(high))


def _maximum(call: Expr, chain: _Chain) -> bool:
    return _bound(chain, scalar(call.args[1]), None)


def _minimum(call: Expr, chain: _Chain) -> bool:
    return _bound(chain, None, scalar(call.args[1]))


def _bound(chain: _Chain, low: float | None, high: float | None) -> bool:
    """Record bounds of q; each once, and not between floor and its half."""
    twice = (low is not None and chain.low is not None) or (high is not None and chain.high is not None)
    if twice or chain.half or (low is None and high is None):
        return False
    shift = 0.0 if chain.inside else chain.zero_point
    chain.low = chain.low if low is None else low + shift
    chain.high = chain.high if high is None else high + shift
    return True


_STEPS = {
    "relax.round": _round,
    "relax.floor": _floor,
    "relax.clip": _clip,
    "relax.maximum": _maximum,
    "relax.minimum": _minimum,
    "relax.subtract": _subtract,
    "relax.add": _add,
}


def _fake_quantize(data: Expr, chain: _Chain, reciprocal: bool) -> Expr | None:
    """The canonical operator, if the constants describe a grid that can be stored."""
    numbers = (chain.low, chain.high, chain.zero_point)
    if any(n is None or n != int(n) for n in numbers) or (chain.zero_point and chain.inside):
        return None
    low, high, zero_point = (int(n or 0) for n in numbers)
    storage = [d for d, (least, most) in STORAGE_RANGE.items() if least <= low < high <= most]
    axis = _channel_axis(chain.scale, shape_of(data))
    if not storage or storage[0] not in _NARROW or not low <= zero_point <= high or axis == _NO_AXIS:
        return None
    rounding = chain.rounding or "half_even"
    formula = "reciprocal_half_even" if reciprocal and rounding == "half_even" else rounding
    if reciprocal and rounding != "half_even":
        return None
    params = QParams(chain.scale.reshape(-1), np.asarray(zero_point), storage[0], axis, low, high)
    return build.fake_quantize(data, params, formula)


_NARROW = ("int8", "uint8", "int16", "uint16")
_NO_AXIS = -1


def _channel_axis(scale: Array, shape: Any) -> int | None:
    """The axis along which `scale` varies when broadcast to `shape`; None if it does not."""
    if scale.size == 1:
        return None
    rank = len(shape or ())
    axes = [rank - scale.ndim + i for i, size in enumerate(scale.shape) if size > 1]
    return axes[0] if len(axes) == 1 and axes[0] >= 0 else _NO_AXIS
