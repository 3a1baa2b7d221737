"""The forms in which a float tensor is carried while it is folded."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, Shape, array_of, const, dtype_of, is_const, relax, shape_of
from tvm_qat.passes.carry import Walk
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qparams import QParams


@dataclass(frozen=True, eq=False)
class Carried:
    """A float tensor whose value is dequantize(q, params), then clamped to [low, high].

    q : integer tensor, a variable or constant.
    low, high : real bounds of a relu or clip that the next quantize will absorb into its range.
    bound : greatest |q| that can occur, for int32 accumulators.
    source : the node that made it.
    """

    q: Expr
    params: QParams
    low: float = -math.inf
    high: float = math.inf
    bound: int | None = None
    source: str | None = None
    out_dtype: str = "float32"
    carried = True

    @property
    def shape(self) -> Shape | None:
        return shape_of(self.q)

    @property
    def clamped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


@dataclass(frozen=True, eq=False)
class Pending:
    """A float operator on carried operands, waiting for the quantize that gives it a grid.

    call : the operator as it was written; its attributes serve when it must run in float.
    operands : Carried, Pending or constant expressions, in the order of the call's arguments
        (a concatenation's parts as one tuple).
    """

    call: Expr
    operands: tuple[Any, ...]
    low: float = -math.inf
    high: float = math.inf
    source: str | None = None
    carried = True

    @property
    def shape(self) -> Shape | None:
        return shape_of(self.call)

    @property
    def clamped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


@dataclass(frozen=True)
class Skip:
    """A rule that must not apply, and why; `inspect` shows the reason to users."""

    reason: str


def clamp(value: Carried | Pending, low: float, high: float) -> Carried | Pending:
    """`value` clamped to [low, high] on top of what it is clamped to already."""
    return replace(
        value,
        low=min(max(value.low, low), high),
        high=max(min(value.high, high), low),
    )


def narrowed(params: QParams, low: float, high: float, rounding: str) -> QParams | None:
    """The grid with its range cut to the real interval [low, high].

    Quantization is monotone, so quantize(clip(x, low, high)) clamps to quantize(low) and
    quantize(high). None if no single bound serves all channels, or a single value is left.
    """
    if params.zero_point.size > 1 or (params.scale.size > 1 and (low, high) != (0.0, math.inf)):
        return None
    qmin, qmax = params.range
    one = params.with_(scale=params.scale.flat[0], axis=None)
    if math.isfinite(low):
        qmin = int(arithmetic.quantize(np.asarray([low], np.float32), one, rounding)[0])
    if math.isfinite(high):
        qmax = int(arithmetic.quantize(np.asarray([high], np.float32), one, rounding)[0])
    return params.with_(qmin=qmin, qmax=qmax) if qmin < qmax else None


def plain(walk: Walk, value: Carried) -> Carried | Skip:
    """`value` with its pending clamp applied to the integers, where the grid holds the bounds."""
    if not value.clamped:
        return value
    params = narrowed(value.params, value.low, value.high, "half_even")
    if params is None:
        return Skip("the clip between it and its producer has no exact bound in integers")
    for bound, q in zip((value.low, value.high), params.range, strict=True):
        if math.isfinite(bound) and not _on_grid(bound, q, params):
            return Skip(f"the clip bound {bound:g} does not lie on the grid of its input")
    q = walk.emit(relax.op.clip(value.q, *params.range), value.source)
    return replace(value, q=q, low=-math.inf, high=math.inf)


def _on_grid(bound: float, q: int, params: QParams) -> bool:
    """Whether dequantize(q) is exactly `bound`, whatever the channel."""
    steps = q - int(params.zero_point.reshape(-1)[0])
    return bool(np.all(np.float32(steps) * params.scale.astype(np.float32) == np.float32(bound)))


def dequantized(value: Carried) -> Expr:
    """The float form of a carried tensor, without its clamp."""
    if is_const(value.q):
        return const(arithmetic.dequantize(array_of(value.q), value.params).astype(value.out_dtype))
    return build.dequantize(value.q, value.params, value.out_dtype)


def clamped_float(value: Carried | Pending, real: Expr) -> Expr:
    """The float expression `real` with the clamp that `value` still carries."""
    if (value.low, value.high) == (0.0, math.inf):
        return relax.op.nn.relu(real)
    if value.high == math.inf:
        return relax.op.maximum(real, const(np.asarray(value.low, dtype_of(real))))
    if value.low == -math.inf:
        return relax.op.minimum(real, const(np.asarray(value.high, dtype_of(real))))
    return relax.op.clip(real, value.low, value.high)
