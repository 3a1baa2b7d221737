"""The forms in which a float tensor is carried while it is folded."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, Shape, array_of, const, dtype_of, is_const, relax, shape_of
from tvm_qat.passes.carry import Walk
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qnn.arithmetic import Array
from tvm_qat.qparams import QParams


@dataclass(frozen=True, eq=False)
class Carried:
    """A float tensor whose value is dequantize(q, params), then clamped to [low, high].

    q : integer tensor, a variable or constant.
    low, high : real bounds of a relu or clip that the next quantize will absorb into its range.
    bound : greatest |q| that can occur, for int32 accumulators.
    exact : the rounding of a requantize under profile `tflite`.
    unrounded : the sum as it was written, where `q` holds its constant rounded to the grid.
    source : the node that made it.
    clamped_by : the node that clamps it last.
    """

    q: Expr
    params: QParams
    low: float = -math.inf
    high: float = math.inf
    bound: int | None = None
    exact: str = "tflite"
    unrounded: Unrounded | None = None
    source: str | None = None
    clamped_by: str | None = None
    out_dtype: str = "float32"
    carried = True

    @property
    def shape(self) -> Shape | None:
        return shape_of(self.q)

    @property
    def clamped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


@dataclass(frozen=True, eq=False)
class Unrounded:
    """A sum whose constant does not lie on its grid, for whoever needs its float value.

    q, params : of the Carried it belongs to; moved or rescaled, that one is another sum.
    """

    q: Expr
    params: QParams
    sum: Pending

    def belongs_to(self, value: Carried) -> bool:
        return self.q.same_as(value.q) and self.params == value.params


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
    clamped_by: str | None = None
    carried = True

    @property
    def shape(self) -> Shape | None:
        return shape_of(self.call)

    @property
    def clamped(self) -> bool:
        return self.low > -math.inf or self.high < math.inf


@dataclass(frozen=True)
class Skip:
    """A rule that must not apply, and why; `inspect` shows both to users.

    code : one of CODES, for programs. reason : one clause whose subject is the operator.
    """

    code: str
    reason: str


CODES = {
    "not-quantized": "an input or weight is float: fake-quantize it in training, or accept the island",
    "result-not-quantized": "quantize the input of the node that reads it",
    "model-output": "nothing is wrong; quantize the output if integers are to leave the model",
    "no-rule": "there is no integer form of the operator; around it everything else stays integer",
    "per-channel": "quantize per tensor, or weights along their output channels",
    "off-grid": "quantize after the clip or padding, or choose its value on the grid",
    "overflow": "quantize with fewer bits, or split the sum",
    "run-time": "export with constant parameters and known sizes",
    "dynamic": "train with scales that stay (static quantization), not with one of each batch or token",
    "width": "quantize to 8 bits",
    "other-grid": "quantize both operands alike",
    "by-request": "leave it out of keep_float, or name its operator in only_int8",
}
"""Why an operator stays in float, and what to do about it."""


def clamp(value: Carried | Pending, low: float, high: float, by: str | None) -> Carried | Pending:
    """`value` clamped to [low, high] by a node, on top of what it is clamped to already."""
    return replace(
        value,
        low=min(max(value.low, low), high),
        high=max(min(value.high, high), low),
        clamped_by=by,
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
        return Skip("off-grid", "the clip between it and its producer has no exact bound in integers")
    least, most = _reals(params)
    for bound, exact in (
        (value.low, _is_bound(value.low, least, params.range[0] == value.params.range[0])),
        (value.high, _is_bound(-value.high, -most, params.range[1] == value.params.range[1])),
    ):
        if not exact:
            return Skip("off-grid", f"the clip bound {bound:g} does not lie on the grid of its input")
    q = value.q if params.range == value.params.range else _clipped(walk, value, params)
    return replace(value, q=q, low=-math.inf, high=math.inf)


def _reals(params: QParams) -> tuple[Array, Array]:
    """What the two ends of the range mean, for every channel; float32."""
    steps = (np.float32(q - int(params.zero_point.reshape(-1)[0])) for q in params.range)
    low, high = (np.asarray(s * params.scale.astype(np.float32)) for s in steps)
    return low, high


def _is_bound(bound: float, end: Array, whole: bool) -> bool:
    """Whether a lower bound is exactly what the `end` of the range means.

    A bound beyond the `whole` range changes nothing, so it needs no place on the grid.
    """
    beyond = end >= np.float32(bound)
    return not math.isfinite(bound) or bool(np.all(end == np.float32(bound)) or (whole and np.all(beyond)))


def _clipped(walk: Walk, value: Carried, params: QParams) -> Expr:
    if is_const(value.q):
        return const(np.clip(array_of(value.q), *params.range))
    return walk.emit(relax.op.clip(value.q, *params.range), value.clamped_by or value.source)


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
