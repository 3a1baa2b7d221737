"""How two tensors differ: figures that gather over samples.

Integers are compared in steps of their grid, floats relative to the largest magnitude of the tensor
that they are compared with. A difference is *explained by a tie* where the value before rounding lies
so close to where rounding changes that the error of float arithmetic decides:

    the reference's integer lies between quantize(x - bound) and quantize(x + bound)
    bound = 2^-16 max |x| + what integers round before that (points.Point)

x is the simulation's real value. 2^-16 is 128 roundings of float32, what sums of some thousand
products come to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]

FLOAT_ERROR = 2.0**-16


@dataclass(frozen=True)
class Figures:
    """max_steps, mean_steps : of tensors on a grid, else None. max_relative, mean_relative : of float
    tensors, else None. tie_share : of the elements that differ, 1 if none does. cosine : of both
    tensors, 1 where both are zero. sqnr_db : power of the tensor over power of the difference; None
    without a difference.
    """

    elements: int
    differing: int
    max_steps: float | None
    mean_steps: float | None
    max_relative: float | None
    mean_relative: float | None
    tie_share: float
    cosine: float
    sqnr_db: float | None

    @property
    def unexplained(self) -> int:
        """Elements that differ by more than ties explain."""
        return round(self.differing * (1 - self.tie_share))

    @property
    def noise(self) -> float:
        """Power of the difference over power of the tensor."""
        return 0.0 if self.sqnr_db is None else 10 ** (-self.sqnr_db / 10)


class Difference:
    """Adds up what differs, tensor by tensor. grid : of both, None for floats and plain integers."""

    def __init__(self, grid: QParams | None, integers: bool) -> None:
        self._grid, self._integers = grid, integers
        self._elements = self._differing = self._ties = 0
        self._max = self._sum = self._largest = 0.0
        self._products = [0.0, 0.0, 0.0, 0.0]

    def add(self, found: Array, expected: Array, ties: Array | None = None) -> None:
        """Two tensors of one shape. ties : which elements a tie may explain."""
        unequal = _unequal(found, expected)
        self._elements += unequal.size
        self._differing += int(np.count_nonzero(unequal))
        self._ties += 0 if ties is None else int(np.count_nonzero(unequal & ties))
        self._measure(found, expected, unequal)

    def _measure(self, found: Array, expected: Array, unequal: Array) -> None:
        """A difference of NaN or infinity counts as the largest float there is."""
        with np.errstate(invalid="ignore", over="ignore"):
            apart = np.abs(found.astype(np.float64) - expected.astype(np.float64))
            apart = np.where(unequal, np.nan_to_num(apart, nan=np.inf, posinf=np.inf), 0.0)
        apart = np.minimum(apart, np.finfo(np.float32).max)
        self._max = max(self._max, float(apart.max(initial=0.0)))
        self._sum += float(apart.sum())
        x, y = self._real(found), self._real(expected)
        self._largest = max(self._largest, float(np.abs(y).max(initial=0.0)))
        for i, (a, b) in enumerate(((x, y), (x, x), (y, y), (x - y, x - y))):
            self._products[i] += float(np.vdot(a, b))

    def _real(self, values: Array) -> Array:
        real = values if self._grid is None else arithmetic.dequantize(values, self._grid)
        return np.nan_to_num(real.astype(np.float64), posinf=0.0, neginf=0.0)

    def figures(self) -> Figures:
        mean = self._sum / self._elements if self._elements else 0.0
        largest = self._largest or 1.0
        both, found, expected, apart = self._products
        norms = math.sqrt(found) * math.sqrt(expected)
        return Figures(
            self._elements,
            self._differing,
            self._max if self._integers else None,
            mean if self._integers else None,
            None if self._integers else self._max / largest,
            None if self._integers else mean / largest,
            self._ties / self._differing if self._differing else 1.0,
            both / norms if norms else float(found == expected),
            None if not apart else 10 * math.log10(max(expected, 1e-300) / apart),
        )


def _unequal(found: Array, expected: Array) -> Array:
    """Bit by bit, but for the sign of a zero; any two NaNs are equal."""
    unequal = np.asarray(found != expected)
    if found.dtype.kind == "f" and expected.dtype.kind == "f":
        unequal &= ~(np.isnan(found) & np.isnan(expected))
    return unequal


def ties_of(found: Array, real: Array, grid: QParams, formula: str, moved: float) -> Array:
    """Where rounding `real` with an error of the bound gives `found`. moved : see points.Point."""
    finite = real[np.isfinite(real)]
    bound = np.float32(FLOAT_ERROR * float(np.abs(finite).max(initial=0.0)) + moved)
    low = arithmetic.quantize(real - bound, grid, formula)
    high = arithmetic.quantize(real + bound, grid, formula)
    return np.asarray((np.minimum(low, high) <= found) & (found <= np.maximum(low, high)))
