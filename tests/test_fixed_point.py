"""Rounding and fixed-point arithmetic against decimal, fractions and Python's own integers."""

from __future__ import annotations

import decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvm_qat import fixed_point

F32 = np.float32
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1
MODES = {
    "half_even": decimal.ROUND_HALF_EVEN,
    "half_away": decimal.ROUND_HALF_UP,
    "floor": decimal.ROUND_FLOOR,
    "ceil": decimal.ROUND_CEILING,
    "toward_zero": decimal.ROUND_DOWN,
    "half_toward_zero": decimal.ROUND_HALF_DOWN,
    "away_from_zero": decimal.ROUND_UP,
}


def rounded(x: np.float32, mode: str) -> int:
    """`x` as a whole number; half_up and half_down depend on the sign in decimal's words."""
    if mode == "sign":
        return 1 if x >= 0 else -1
    if mode == "half_up":
        name = decimal.ROUND_HALF_UP if x > 0 else decimal.ROUND_HALF_DOWN
    elif mode == "half_down":
        name = decimal.ROUND_HALF_DOWN if x > 0 else decimal.ROUND_HALF_UP
    else:
        name = MODES[mode]
    with decimal.localcontext() as context:
        context.prec = 200
        return int(decimal.Decimal(float(x)).quantize(decimal.Decimal(1), rounding=name))


def ties_and_neighbours() -> np.ndarray:
    halves = np.concatenate([np.arange(-600, 600) / 2, 2.0 ** np.arange(8, 40) + 0.5]).astype(F32)
    halves = np.concatenate([halves, -halves])
    return np.concatenate([halves, np.nextafter(halves, F32(np.inf)), np.nextafter(halves, F32(-np.inf))])


def large_and_tiny() -> np.ndarray:
    powers = F32(2) ** np.arange(-126, 128, dtype=F32)
    return np.concatenate([powers, -powers, powers * F32(1.9999999), F32([1e-45, -1e-45, 3.4e38])])


@pytest.mark.parametrize("mode", fixed_point.ROUNDINGS)
def test_roundings_agree_with_decimal(mode: str):
    x = np.concatenate([ties_and_neighbours(), large_and_tiny()])
    got = fixed_point.ROUNDINGS[mode](x)
    assert got.dtype == np.float32
    assert [int(v) for v in got] == [rounded(v, mode) for v in x]


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_any_float_is_rounded_as_by_decimal(x: float):
    for mode, function in fixed_point.ROUNDINGS.items():
        assert int(function(np.array([x], F32))[0]) == rounded(F32(x), mode), mode


def test_every_mode_is_checked():
    assert set(fixed_point.ROUNDINGS) == {*MODES, "half_up", "half_down", "sign"}


def split(real: float) -> tuple[int, int]:
    multiplier, shift = fixed_point.quantize_multiplier(np.array(real))
    assert multiplier.dtype == shift.dtype == np.int32
    return int(multiplier), int(shift)


@given(st.floats(2.0**-31, 2.0**29))
def test_a_multiplier_has_31_significant_bits(real: float):
    multiplier, shift = split(real)
    assert 2**30 <= multiplier < 2**31
    step = Fraction(2) ** (shift - 31)
    assert abs(Fraction(real) - multiplier * step) <= step / 2


@pytest.mark.parametrize(
    ("real", "expected"),
    [
        (1.0, (2**30, 1)),
        (0.5, (2**30, 0)),
        (0.75, (3 * 2**29, 0)),
        (1 - 2.0**-40, (2**30, 1)),  # rounds up to 2^31, so it is halved and the shift grows
        (0.5 + 2.0**-32, (2**30 + 1, 0)),  # a tie goes away from zero
        (0.5 + 3 * 2.0**-32, (2**30 + 2, 0)),
        (2.0**-32, (2**30, -31)),
        (2.0**-33, (0, 0)),  # less than any shift can hold
        (0.0, (0, 0)),
        (2.0**30 - 1, (2**31 - 2, 30)),
        (2.0**30, (2**31 - 1, 30)),  # more than any shift can hold
        (1e300, (2**31 - 1, 30)),
    ],
)
def test_multipliers_at_the_borders(real: float, expected: tuple[int, int]):
    assert split(real) == expected


def test_multipliers_keep_the_shape():
    multiplier, shift = fixed_point.quantize_multiplier(np.array([[0.1, 0.2]]))
    assert multiplier.shape == shift.shape == (1, 2)


# Python's integers never overflow: these follow gemmlowp's text literally.


def truncated_division(a: int, b: int) -> int:
    return abs(a) // b * (1 if a >= 0 else -1)


def high_mul(a: int, b: int) -> int:
    if a == b == INT32_MIN:
        return INT32_MAX
    return truncated_division(a * b + ((1 << 30) if a * b >= 0 else 1 - (1 << 30)), 1 << 31)


def divide_by_power_of_two(x: int, exponent: int) -> int:
    exact = Fraction(x, 1 << exponent)
    whole = (abs(exact) + Fraction(1, 2)).__floor__()
    return whole if x >= 0 else -whole


def wrapped(x: int) -> int:
    return (x + 2**31) % 2**32 - 2**31


def double(x: int, multiplier: int, shift: int) -> int:
    shifted = wrapped(x << max(shift, 0))
    return divide_by_power_of_two(high_mul(shifted, multiplier), max(-shift, 0))


def single(x: int, multiplier: int, shift: int) -> int:
    exact = Fraction(x * multiplier, 1) * Fraction(2) ** (shift - 31)
    return min(max((exact + Fraction(1, 2)).__floor__(), INT32_MIN), INT32_MAX)


def away(x: int, multiplier: int, shift: int) -> int:
    exact = Fraction(x * multiplier, 1) * Fraction(2) ** (shift - 31)
    whole = (abs(exact) + Fraction(1, 2)).__floor__()
    return min(max(whole if x >= 0 else -whole, INT32_MIN), INT32_MAX)


EXTREMES = [
    INT32_MIN,
    INT32_MIN + 1,
    -(2**30) - 1,
    -(2**30),
    -3,
    -2,
    -1,
    0,
    1,
    2,
    3,
    2**30,
    INT32_MAX - 1,
    INT32_MAX,
]


def test_high_product_of_all_extremes():
    pairs = np.array([(a, b) for a in EXTREMES for b in EXTREMES], np.int32)
    got = fixed_point.saturating_rounding_doubling_high_mul(pairs[:, 0], pairs[:, 1])
    assert got.dtype == np.int32
    assert got.tolist() == [high_mul(int(a), int(b)) for a, b in pairs]


def test_the_high_product_saturates_where_int32_ends():
    least = np.array(INT32_MIN, np.int32)
    assert fixed_point.saturating_rounding_doubling_high_mul(least, least) == INT32_MAX


def test_ties_of_the_high_product_go_up():
    a = np.array([1, -1, 3, -3], np.int32)
    half = fixed_point.saturating_rounding_doubling_high_mul(a, np.full(4, 2**30, np.int32))
    assert half.tolist() == [1, 0, 2, -1]


def test_division_by_powers_of_two_rounds_half_away():
    xs = [*EXTREMES, *range(-40, 40)]
    for exponent in range(32):
        got = fixed_point.rounding_divide_by_power_of_two(np.array(xs, np.int32), np.array(exponent))
        assert got.tolist() == [divide_by_power_of_two(x, exponent) for x in xs], exponent


MULTIPLIERS = [0, 2**30, 2**30 + 1, 2**31 - 1, 1518500250]
FORMS = {
    fixed_point.multiply_by_quantized_multiplier: double,
    fixed_point.multiply_by_quantized_multiplier_single: single,
    fixed_point.multiply_by_quantized_multiplier_away: away,
}
each_form = pytest.mark.parametrize(("form", "exact"), FORMS.items(), ids=["double", "single", "away"])


@each_form
def test_requantization_of_extremes_at_every_shift(form, exact):
    cases = [(x, m, s) for x in EXTREMES for m in MULTIPLIERS for s in range(-31, 31)]
    x, multiplier, shift = np.array(cases, np.int32).T
    assert form(x, multiplier, shift).tolist() == [exact(*case) for case in cases]


@each_form
@given(
    x=st.integers(INT32_MIN, INT32_MAX), multiplier=st.integers(2**30, 2**31 - 1), shift=st.integers(-31, 30)
)
def test_requantization_of_anything(form, exact, x: int, multiplier: int, shift: int):
    got = form(np.array(x, np.int32), np.array(multiplier, np.int32), np.array(shift, np.int32))
    assert got.dtype == np.int32 and int(got) == exact(x, multiplier, shift)


def test_both_forms_are_within_one_step_of_the_real_product():
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**24), 2**24, 10_000).astype(np.int32)
    real = 10 ** rng.uniform(-4, 0, 10_000)
    multiplier, shift = fixed_point.quantize_multiplier(real)
    for form in FORMS:
        assert np.abs(form(x, multiplier, shift) - x * real).max() <= 1.0


@pytest.mark.parametrize(
    ("count", "bits"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11)]
)
def test_bits_for_is_the_least_power(count: int, bits: int):
    assert fixed_point.bits_for(count) == bits
