"""Is every quantizer's range used, and wide enough? Dead and clipped ranges are the commonest fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import Expr, Var, array_of, bindings_of, dtype_of, is_const, op_name, operands, source_of
from tvm_qat.qnn import arithmetic
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]

BINS = 64
"""Of a histogram, over the range and a quarter of it on both sides."""

_MUCH_CLIPPED = 0.01
_LITTLE_USED = 0.5


@dataclass(frozen=True)
class Histogram:
    """Counts of BINS equal bins between low and high, in steps; below and above: values beyond them."""

    low: float
    high: float
    counts: tuple[int, ...]
    below: int
    above: int


@dataclass(frozen=True)
class Quantizer:
    """One quantizer and what passed through it.

    name : its node. kind : "activation" or "weight". scale : least and greatest, they differ per
    channel. clipped_low, clipped_high : share of values beyond the range, of activations; of weights,
    which are stored, that lie at its ends. used_share : of the range, between the least and the greatest
    integer found; per channel the mean over channels. warnings : in plain words.
    """

    name: str
    kind: str
    dtype: str
    range: tuple[int, int]
    scale: tuple[float, float]
    zero_point: tuple[int, int]
    channels: int | None
    elements: int
    clipped_low: float
    clipped_high: float
    used_share: float
    histogram: Histogram
    warnings: tuple[str, ...] = ()


class Gauge:
    """Gathers what one quantizer does, tensor by tensor."""

    def __init__(self, name: str, kind: str, grid: QParams) -> None:
        self._name, self._kind, self._grid = name, kind, grid
        qmin, qmax = grid.range
        margin = (qmax - qmin) / 4
        self._ends = (qmin - margin, qmax + margin)
        self._counts = np.zeros(BINS, np.int64)
        self._elements = self._below = self._above = 0
        self._clipped = np.zeros(2, np.int64)
        self._least: Array | None = None
        self._most: Array | None = None

    def add(self, q: Array, real: Array | None) -> None:
        """q : integers. real : what they were before rounding; None for weights that are stored rounded."""
        qmin, qmax = self._grid.range
        if real is None:
            self._count(*_distinct(q))
            self._clipped += np.count_nonzero(q <= qmin), np.count_nonzero(q >= qmax)
        else:
            steps = self._steps(real)
            self._count(steps)
            self._clipped += np.count_nonzero(steps < qmin - 0.5), np.count_nonzero(steps > qmax + 0.5)
        self._elements += q.size
        self._extend(q)

    def _count(self, steps: Array, times: Array | None = None) -> None:
        """times : how often each value of `steps` is there, once by default."""
        inside, _ = np.histogram(steps, BINS, self._ends, weights=times)
        ones = np.ones(steps.shape, np.int64) if times is None else times
        self._counts += inside
        self._below += int(ones[steps < self._ends[0]].sum())
        self._above += int(ones[steps > self._ends[1]].sum())

    def _steps(self, real: Array) -> Array:
        grid = self._grid
        scale = arithmetic.spread(grid.scale.astype(np.float32), grid.axis, real.ndim)
        steps = real.astype(np.float32) / scale + arithmetic.spread(grid.zero_point, grid.axis, real.ndim)
        return np.nan_to_num(np.asarray(steps, np.float32))

    def _extend(self, q: Array) -> None:
        axis = self._grid.axis
        others = tuple(i for i in range(q.ndim) if axis is None or i != axis % q.ndim)
        if not q.size:
            return
        least, most = (np.asarray(f(q, axis=others), np.int64) for f in (np.min, np.max))
        self._least = least if self._least is None else np.minimum(self._least, least)
        self._most = most if self._most is None else np.maximum(self._most, most)

    def quantizer(self) -> Quantizer:
        grid, count = self._grid, max(self._elements, 1)
        (qmin, qmax), (low, high) = grid.range, (int(n) for n in self._clipped)
        used = np.zeros(()) if self._least is None or self._most is None else self._most - self._least
        found = Quantizer(
            self._name, self._kind, grid.dtype, grid.range,
            (float(grid.scale.min()), float(grid.scale.max())),
            (int(grid.zero_point.min()), int(grid.zero_point.max())),
            grid.channels, self._elements, low / count, high / count,
            float(np.mean(used / (qmax - qmin))),
            Histogram(
                float(self._ends[0]), float(self._ends[1]), tuple(map(int, self._counts)),
                self._below, self._above,
            ),
        )  # fmt: skip
        return replace(found, warnings=tuple(_warnings(found, used)))


def _distinct(q: Array) -> tuple[Array, Array]:
    """The integers of `q`, and how often each is there: weights are many, their values few."""
    if not q.size:
        return np.zeros(0), np.zeros(0, np.int64)
    least = int(q.min())
    times = np.bincount(q.reshape(-1).astype(np.int64) - least)
    return least + np.arange(times.size), times


def _warnings(found: Quantizer, used: Array) -> list[str]:
    dead = int(np.count_nonzero(used == 0))
    clips = _clips(found)
    if found.elements and dead == used.size:
        return ["dead: all values are the same integer", *_narrow(clips)]
    if dead:
        channels = f"{dead} of {used.size} channels are dead"
        return [f"{channels}: all their values are the same integer", *_narrow(clips)]
    if found.used_share >= _LITTLE_USED:
        return _narrow(clips)
    little = f"only {found.used_share:.0%} of its range is used"
    if not clips:
        return [f"{little}: the range is too wide"]
    return [f"{little}, yet it clips {_shares(clips)}: {_misplaced(clips, used.size > 1)}"]


def _clips(found: Quantizer) -> dict[str, float]:
    """The ends at which an activation loses more than a little, and the share of values lost there."""
    if found.kind == "weight":
        return {}
    # a range that begins at zero is a relu: what it cuts off below, it is meant to
    relu = found.zero_point == (found.range[0],) * 2
    ends = {"top": found.clipped_high, **({} if relu else {"bottom": found.clipped_low})}
    return {end: share for end, share in ends.items() if share > _MUCH_CLIPPED}


def _narrow(clips: Mapping[str, float]) -> list[str]:
    return [f"clips {_shares({end: clips[end]})}: the range is too narrow" for end in clips]


def _shares(clips: Mapping[str, float]) -> str:
    return " and ".join(f"{share:.1%} of its values at the {end}" for end, share in clips.items())


def _misplaced(clips: Mapping[str, float], per_channel: bool) -> str:
    """A range of which half is not used cannot also be too narrow: it lies in the wrong place."""
    if per_channel:
        return "some channels' ranges are too wide, others too narrow"
    return "the range lies too low" if "top" in clips else "the range lies too high"


def constant_variables(func: Any) -> set[Var]:
    """The variables of a function that depend on constants alone."""
    found: set[Var] = set()
    for binding in bindings_of(func):
        inside = operands(binding.value)
        if inside and all(_is_constant(expr, found) for expr in inside):
            found.add(binding.var)
    return found


def _is_constant(expr: Expr, known: set[Var]) -> bool:
    if isinstance(expr, Var):
        return expr in known
    return all(_is_constant(child, known) for child in operands(expr))


def weight_gauge(value: Expr, result: Array, data: Array) -> Gauge | None:
    """The gauge of a call that quantizes or dequantizes a constant weight, filled; None for others.

    result : of the call. data : its first operand.
    """
    name = op_name(value)
    if name == "qnn.dequantize" and is_const(value.args[0]) and dtype_of(value.args[0]) != "int32":
        grid, q, real = params_of(value, "input"), array_of(value.args[0]), None
    elif name == "qnn.quantize":
        grid, q, real = params_of(value, "output"), result, data
    else:
        return None
    if grid is None:
        return None
    gauge = Gauge(source_of(value) or "", "weight", grid.check_axis(q.shape))
    gauge.add(q, real)
    return gauge
