"""gemmlowp's fixed-point functions that softmax uses, on int32 held in int64 arrays.

A FixedPoint<int32, i> is a raw int32 with i integer bits and 31 - i fractional ones. Source:
gemmlowp's fixedpoint.h; the constants are that file's.
"""

from __future__ import annotations

import numpy as np

from tvm_qat.qnn.arithmetic import Array

INT32_MAX, INT32_MIN = 2**31 - 1, -(2**31)


def times(a: Array, b: Array) -> Array:
    """The product of two raw values: ab / 2^31 rounded half up, as gemmlowp's doubling high product."""
    return np.asarray(np.minimum((a * b + (1 << 30)) >> 31, INT32_MAX))


def halved(a: Array, exponent: int | Array) -> Array:
    """a / 2^exponent, rounded half away from zero."""
    mask = (np.int64(1) << exponent) - 1
    return np.asarray((a >> exponent) + ((a & mask) > (mask >> 1) + (a < 0)))


def doubled(a: Array, exponent: int) -> Array:
    """a * 2^exponent, saturated."""
    return np.asarray(np.clip(a << exponent, INT32_MIN, INT32_MAX))


def exp_of_negative(a: Array) -> Array:
    """exp(a) for a <= 0 with 5 integer bits; no integer bits in the result."""
    quarter = 1 << 24
    inner = (a & (quarter - 1)) - quarter
    result = _exp_around_an_eighth(doubled(inner, 5))
    remainder = inner - a
    for exponent, factor in enumerate(_POWERS, -2):
        result = np.where(remainder & (1 << (26 + exponent)), times(result, np.int64(factor)), result)
    return np.where(a == 0, INT32_MAX, result)


_POWERS = (1672461947, 1302514674, 790015084, 290630308, 39332535, 720401, 242)
"""exp(-2^k) for k = -2 .. 4, times 2^31."""


def _exp_around_an_eighth(a: Array) -> Array:
    """exp(a) for -1/4 <= a < 0, by Taylor's series around -1/8."""
    eighth, third = np.int64(1895147668), np.int64(715827883)
    x = a + (1 << 28)
    x2 = times(x, x)
    x3, x4 = times(x2, x), times(x2, x2)
    tail = halved(times(halved(x4, 2) + x3, third) + x2, 1)
    return np.asarray(eighth + times(eighth, x + tail))


def reciprocal(a: Array) -> Array:
    """1 / (1 + a) for 0 <= a < 1 without integer bits, by three steps of Newton's division."""
    half = (a + INT32_MAX + 1) >> 1
    x = 1515870810 + times(half, np.int64(-1010580540))
    for _ in range(3):
        x = x + doubled(times(x, (1 << 29) - times(half, x)), 2)
    return doubled(x, 1)
