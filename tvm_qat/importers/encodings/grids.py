"""From scale and offset, as AIMET stores them, to QParams.

AIMET counts the steps of every grid from its lower end: with b bits, u = 0 .. 2^b - 1 and
real = scale * (u + offset), so the offset is negative or zero. How training rounded is
u = clamp(round_half_even(x / scale) - offset), which is `qnn.fake_quantize` with half_even.

    kind                 offset            grid of the integers q
    asymmetric           -2^b + 1 .. 0     unsigned, zero point -offset
    symmetric            -2^(b-1)          signed, -2^(b-1) .. 2^(b-1) - 1, zero point 0
    strict symmetric     -2^(b-1) + 1      signed, one step less at the lower end
    unsigned symmetric   0                 unsigned, zero point 0

Some versions write a strict symmetric grid with the offset of a symmetric one; then only `min`
tells that its lowest step is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.qparams import QParams

Array = npt.NDArray[Any]

UNKNOWN_AXIS = 0
"""Stands for the axis of per-channel parameters until it is known who reads the tensor."""


def storage_of(bits: int, signed: bool) -> tuple[str, int, int]:
    """(storage dtype, qmin, qmax) of whole grids of that many bits."""
    if bits not in (*range(2, 17), 32) or (bits == 32 and not signed):
        raise UnsupportedError(f"{'' if signed else 'unsigned '}integers of {bits} bits are not supported")
    low = -(1 << bits - 1) if signed else 0
    width = 8 if bits <= 8 else 16 if bits <= 16 else 32
    return f"{'' if signed else 'u'}int{width}", low, low + (1 << bits) - 1


def from_offsets(
    scale: Sequence[float], offset: Sequence[int], bits: int, symmetric: bool,
    minimum: Sequence[float] | None = None, maximum: Sequence[float] | None = None,
) -> QParams:  # fmt: skip
    """scale, offset, minimum, maximum : one number, or one for each channel."""
    starts = np.asarray(offset, np.int64)
    storage_of(bits, symmetric or not starts.any())
    steps, half = (1 << bits) - 1, 1 << bits - 1
    if np.any(starts > 0) or np.any(starts < -steps):
        raise InputError(f"offset {starts[(starts > 0) | (starts < -steps)][0]} puts zero off its grid")
    lowest = _lowest(scale, starts, steps, minimum, maximum)
    strict = lowest == 1 - half
    if symmetric and strict.any():
        if not strict.all():
            raise UnsupportedError("some of its channels are strict symmetric, others are not")
        return _params(scale, np.zeros_like(starts), bits, True, narrow=1)
    signed = symmetric and bool(starts.any())
    return _params(scale, -starts - (half if signed else 0), bits, signed)


def _lowest(
    scale: Sequence[float], starts: Array, steps: int,
    minimum: Sequence[float] | None, maximum: Sequence[float] | None,
) -> Array:  # fmt: skip
    """The least step in use, counted from zero: min / scale where min and max are given."""
    if minimum is None or maximum is None or not np.any(np.asarray(maximum) - minimum):
        return starts
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        low, high = (np.asarray(end, np.float64) / scale for end in (minimum, maximum))
    if not (np.all(np.abs(low - starts) < 1.5) and np.all(np.abs(high - starts - steps) < 1.5)):
        raise InputError("its min and max contradict its scale and offset")
    return np.rint(low).astype(np.int64)


def _params(
    scale: Sequence[float], zero_point: Array, bits: int, signed: bool,
    narrow: int = 0,
) -> QParams:  # fmt: skip
    dtype, low, high = storage_of(bits, signed)
    axis = UNKNOWN_AXIS if len(scale) > 1 else None
    return QParams(np.asarray(scale), zero_point, dtype, axis, low + narrow, high)
