"""Transcendental functions of float32 that vectorize and give the same bits on every machine.

Polynomials and quotients of polynomials in plain additions, products, one division and bit
operations: nothing from the C library, no fused multiply-add. Greatest errors, measured against
float64 over every exponent, in units in the last place (`ERROR_ULP`; tested):

    exp 1.0   exp2 1.0   log 0.9   log2 1.8   log10 2.3   log1p 2.5
    tanh 6.0   sigmoid 2.4   erf 6.2   pow 0.51

NaN gives NaN (its payload is not defined), infinities give the limits, results too large give
infinity, and results below 2^-126 are rounded to subnormal numbers (of sigmoid and of
exp_of_negative: to subnormal numbers or, below 2^-126.5, to zero).

- exp: x = n * ln 2 + r, |r| <= ln(2) / 2, with ln 2 in two parts, the first of 9 bits so that n times
  it is exact; e^r = 1 + r + r^2 q(r). 2^n is multiplied in two halves, so that the result overflows
  and underflows as one rounding would have it.
- log: x = 2^e * (1 + f), sqrt(1/2) <= 1 + f < sqrt(2); log(1 + f) = f - f^2 / 2 + f^3 q(f).
- tanh, erf: odd, x P(x^2) / Q(x^2) up to the place where float32 rounds them to one. All coefficients
  are positive, so nothing cancels.
- power: 2^(y log2 x) in float64, with log2(1 + f) = 2 atanh(f / (2 + f)) / ln 2 and e^r by their series.

The coefficients are least in greatest relative error (Lawson's iteration on Chebyshev nodes),
rounded to float32 one after another, each time fitting the others anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tvm_qat.kernels.numbers import Number, Numbers, NumPyNumbers, TirNumbers

Formula: TypeAlias = Callable[..., Number]
"""(numbers, float32 arguments) -> float32 result."""

ERROR_ULP = {
    "exp": 1.0, "exp2": 1.0, "log": 0.9, "log2": 1.8, "log10": 2.3, "log1p": 2.5, "tanh": 6.0,
    "sigmoid": 2.4, "erf": 6.2, "pow": 0.51, "exp_of_negative": 1.0,
}  # fmt: skip

_MAGIC = 1.5 * 2.0**23
_MAGIC_BITS = 0x4B400000
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
_EXP = (0.4999999403953552, 0.1666652113199234, 0.04166826605796814, 0.008368677459657192,
        0.001382073387503624)  # fmt: skip
_LOG = (0.3333333134651184, -0.2500081956386566, 0.20001240074634552, -0.1662340760231018,
        0.14201627671718597, -0.13159683346748352, 0.12761861085891724, -0.07635750621557236)  # fmt: skip
_TANH = (
    (1.0, 0.13379718363285065, 0.00349403521977365, 2.0583489458658732e-05, 1.3319083613794191e-08),
    (1.0, 0.4671303331851959, 0.025871075689792633, 0.0003283093683421612, 7.762024551993818e-07),
)
_ERF = (
    (1.1283791065216064, 0.19078411161899567, 0.0527903214097023, 0.0037796206306666136,
     0.00028480865876190364, 2.0419663542270428e-06),
    (1.0, 0.5024107694625854, 0.11425764113664627, 0.014997460879385471, 0.0011652150424197316,
     3.800403283094056e-05),
)  # fmt: skip
_TANH_IS_ONE, _ERF_IS_ONE = 9.02, 3.93


def _polynomial(m: Numbers, x: Number, coefficients: Sequence[float], dtype: str = "float32") -> Number:
    """Horner's scheme; coefficients from the constant on."""
    *rest, last = coefficients
    total = m.of(last, dtype)
    for coefficient in reversed(rest):
        total = m.named(total * x + m.of(coefficient, dtype))
    return total


def _clamped(m: Numbers, x: Number, low: float, high: float, dtype: str = "float32") -> Number:
    """x between the bounds; NaN stays NaN."""
    x, below, above = m.named(x), m.of(low, dtype), m.of(high, dtype)
    least = m.named(m.select(x < below, below, x))
    return m.named(m.select(least > above, above, least))


def _nearest(m: Numbers, x: Number) -> tuple[Number, Number]:
    """The whole number nearest to x as (float32, int32); |x| < 2^22."""
    moved = m.named(m.fence(x + m.of(_MAGIC)))
    return m.named(moved - m.of(_MAGIC)), m.named(m.bits(moved, "int32") - m.of(_MAGIC_BITS, "int32"))


def _power_of_two(m: Numbers, n: Number) -> Number:
    """2^n; -126 <= n <= 127, and zero for n = -127."""
    return m.bits(m.shift_left(n + m.of(127, "int32"), 23), "float32")


def _exp_of_rest(m: Numbers, r: Number) -> Number:
    return m.named(_polynomial(m, r, _EXP) * (r * r) + r + m.of(1.0))


def _scaled(m: Numbers, x: Number, n: Number) -> Number:
    """x * 2^n, rounded once."""
    half = m.named(m.shift_right(n, 1))
    return x * _power_of_two(m, half) * _power_of_two(m, n - half)


def _split_exp(m: Numbers, x: Number) -> tuple[Number, Number]:
    """(e^r, n) of x = n ln 2 + r."""
    n, whole = _nearest(m, x * m.of(1 / np.log(2)))
    r = m.named((x - n * m.of(_LN2_HIGH)) - n * m.of(_LN2_LOW))
    return _exp_of_rest(m, r), whole


def exp(m: Numbers, x: Number) -> Number:
    return _scaled(m, *_split_exp(m, _clamped(m, x, -104.0, 89.0)))


def exp_of_negative(m: Numbers, x: Number) -> Number:
    """exp of x <= 0, a third faster: from -88 on 2^n is zero, and so is the result."""
    inside = m.named(m.select(x < m.of(-88.0), m.of(-88.0), x))
    power, n = _split_exp(m, inside)
    return power * _power_of_two(m, n)


def exp2(m: Numbers, x: Number) -> Number:
    inside = _clamped(m, x, -151.0, 129.0)
    n, whole = _nearest(m, inside)
    return _scaled(m, _exp_of_rest(m, m.named((inside - n) * m.of(np.log(2)))), whole)


def _split_log(m: Numbers, x: Number) -> tuple[Number, Number]:
    """(f, e) of x = 2^e (1 + f), for positive finite x."""
    small = x < m.of(2.0**-126)
    normal = m.select(small, x * m.of(2.0**23), x)
    sqrt_half = 0x3F3504F3
    moved = m.named(m.bits(normal, "int32") + m.of(0x3F800000 - sqrt_half, "int32"))
    lost = m.select(small, m.of(23 + 127, "int32"), m.of(127, "int32"))
    e = m.cast(m.shift_right(moved, 23) - lost, "float32")
    mantissa = m.bits(m.masked(moved, 0x7FFFFF) + m.of(sqrt_half, "int32"), "float32")
    return m.named(mantissa - m.of(1.0)), m.named(e)


def _log_ends(m: Numbers, x: Number, inside: Number) -> Number:
    """A logarithm with its limits at zero and infinity; NaN for negative numbers."""
    infinite, nan = m.of(float("inf")), m.of(float("nan"))
    positive = m.select(x < infinite, inside, infinite)
    return m.select(x > m.of(0.0), positive, m.select(m.equal(x, m.of(0.0)), m.of(float("-inf")), nan))


def log(m: Numbers, x: Number) -> Number:
    f, e = _split_log(m, x)
    square = m.named(f * f)
    rest = _polynomial(m, f, _LOG) * f * square + e * m.of(_LN2_LOW) - m.of(0.5) * square
    return _log_ends(m, x, m.named(rest + f + e * m.of(_LN2_HIGH)))


def _log_to_base(m: Numbers, x: Number, whole: float, factor: float) -> Number:
    """log(1 + f) * factor + e * whole."""
    f, e = _split_log(m, x)
    square = m.named(f * f)
    natural = _polynomial(m, f, _LOG) * f * square - m.of(0.5) * square + f
    return _log_ends(m, x, m.named(natural * m.of(factor) + e * m.of(whole)))


def log2(m: Numbers, x: Number) -> Number:
    return _log_to_base(m, x, 1.0, 1 / np.log(2))


def log10(m: Numbers, x: Number) -> Number:
    return _log_to_base(m, x, np.log10(2), 1 / np.log(10))


def log1p(m: Numbers, x: Number) -> Number:
    """log(u) * x / (u - 1) with u = 1 + x rounded: the quotient repairs what rounding lost (Kahan)."""
    u = m.named(m.fence(m.of(1.0) + x))
    step = m.named(m.fence(u - m.of(1.0)))
    lost = m.equal(step, m.of(0.0))
    ratio = m.select(
        m.both(x < m.of(float("inf")), x > m.of(-1.0)), x / m.select(lost, m.of(1.0), step), m.of(1.0)
    )
    return m.select(lost, x, log(m, u) * ratio)


def _odd_quotient(
    m: Numbers, x: Number, is_one: float, quotient: tuple[Sequence[float], Sequence[float]]
) -> Number:
    inside = _clamped(m, x, -is_one, is_one)
    square = m.named(inside * inside)
    return _clamped(
        m, inside * _polynomial(m, square, quotient[0]) / _polynomial(m, square, quotient[1]), -1.0, 1.0
    )


def tanh(m: Numbers, x: Number) -> Number:
    return _odd_quotient(m, x, _TANH_IS_ONE, _TANH)


def erf(m: Numbers, x: Number) -> Number:
    return _odd_quotient(m, x, _ERF_IS_ONE, _ERF)


def sigmoid(m: Numbers, x: Number) -> Number:
    """e / (1 + e) or 1 / (1 + e), e = exp(-|x|): nothing overflows, and small results are exact.

    Zero below -87.7, where the result would be subnormal.
    """
    e = m.named(exp_of_negative(m, m.named(m.of(0.0) - m.magnitude(x))))
    return m.named(m.select(x < m.of(0.0), e, m.of(1.0))) / m.named(m.of(1.0) + e)


def _log2_wide(m: Numbers, a: Number) -> Number:
    """log2 of a >= 0 in float64; good to 2^-40."""
    sqrt_half, one = 0x3FE6A09E667F3BCD, 0x3FF0000000000000
    moved = m.named(m.bits(a, "int64") + m.of(one - sqrt_half, "int64"))
    e = m.cast(m.shift_right(moved, 52) - m.of(1023, "int64"), "float64")
    mantissa = m.bits(m.masked(moved, (1 << 52) - 1) + m.of(sqrt_half, "int64"), "float64")
    f = m.named(mantissa - m.of(1.0, "float64"))
    z = m.named(f / (f + m.of(2.0, "float64")))
    series = _polynomial(m, m.named(z * z), [2 / np.log(2) / k for k in range(1, 16, 2)], "float64")
    finite = m.select(a < m.of(float("inf"), "float64"), series * z + e, a)
    return m.select(m.equal(a, m.of(0.0, "float64")), m.of(float("-inf"), "float64"), finite)


def _exp2_wide(m: Numbers, t: Number) -> Number:
    """2^t in float64, 2^200 at most and 2^-200 at least; good to 2^-36."""
    inside, magic = _clamped(m, t, -200.0, 200.0, "float64"), m.of(1.5 * 2.0**52, "float64")
    moved = m.named(m.fence(inside + magic))
    n = m.bits(moved, "int64") - m.of(0x4338000000000000, "int64")
    r = m.named((inside - (moved - magic)) * m.of(np.log(2), "float64"))
    series = _polynomial(m, r, [1 / float(np.prod(range(1, k + 1))) for k in range(12)], "float64")
    return series * m.bits(m.shift_left(n + m.of(1023, "int64"), 52), "float64")


def power(m: Numbers, x: Number, y: Number) -> Number:
    """x^y with the limits of IEEE 754's pow."""
    one, zero = m.of(1.0), m.of(0.0)
    size, exponent = m.named(m.cast(m.magnitude(x), "float64")), m.named(m.cast(y, "float64"))
    result = m.named(m.cast(_exp2_wide(m, m.named(exponent * _log2_wide(m, size))), "float32"))
    small = m.magnitude(y) < m.of(2.0**24)
    whole = m.named(m.cast(m.select(small, y, zero), "int32"))
    odd = m.both(
        small, m.both(m.equal(m.cast(whole, "float32"), y), m.equal(m.masked(whole, 1), m.of(1, "int32")))
    )
    signed = m.named(
        m.select(m.both(odd, m.bits(x, "int32") < m.of(0, "int32")), result * m.of(-1.0), result)
    )
    broken = m.both(small, m.both(x < zero, x > m.of(float("-inf"))))
    broken = m.both(broken, m.differ(m.cast(whole, "float32"), y))
    real = m.named(m.select(broken, m.of(float("nan")), signed))
    unit = m.both(m.equal(m.magnitude(x), one), m.equal(m.magnitude(y), m.of(float("inf"))))
    real = m.select(unit, one, real)
    return m.select(m.equal(x, one), one, m.select(m.equal(y, zero), one, real))


FORMULAS: dict[str, Formula] = {
    "exp": exp, "exp2": exp2, "log": log, "log2": log2, "log10": log10, "log1p": log1p,
    "tanh": tanh, "sigmoid": sigmoid, "erf": erf, "pow": power, "exp_of_negative": exp_of_negative,
}  # fmt: skip
"""By the name of TVM's intrinsic, tirx.<name>; the last has none."""


def expression(formula: Formula, *arguments: Any) -> Any:
    """A formula as a TIR expression of scalars or vectors."""
    numbers = TirNumbers(int(arguments[0].ty.dtype.lanes))
    return numbers.closed(formula(numbers, *(numbers.named(argument) for argument in arguments)))


def evaluate(formula: Formula, *arrays: Any) -> Any:
    """The same on float32 arrays: what compiled code gives, bit for bit."""
    shaped = np.broadcast_arrays(*(np.asarray(array, np.float32) for array in arrays))
    with np.errstate(all="ignore"):
        result = formula(NumPyNumbers(), *(array.reshape(-1) for array in shaped))
    return result.reshape(shaped[0].shape)
