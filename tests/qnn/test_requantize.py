"""requantize against exact rational arithmetic and Python's own integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.test_fixed_point import away, double, single
from tvm_qat import fixed_point
from tvm_qat.qnn.arithmetic import multiplier, requantize
from tvm_qat.qparams import QParams

F32 = np.float32
SOURCE = QParams(np.float64(F32(0.02)) * np.float64(F32(0.003)), 0, "int32")


def half_even(real: Fraction) -> int:
    return round(real)


def sums_around_ties(rng: np.random.Generator, factor: Fraction, count: int = 400) -> np.ndarray:
    """int32 whose product with `factor` lies near a half."""
    halves = [Fraction(int(k)) + Fraction(1, 2) for k in rng.integers(-400, 400, count)]
    centre = np.array([int(h / factor) for h in halves])
    values = np.concatenate([centre, centre + 1, centre - 1, rng.integers(-(2**31), 2**31, count)])
    return np.clip(values, -(2**31), 2**31 - 1).astype(np.int32)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_half_even_is_exact_rational_arithmetic_but_for_two_roundings_of_float32(rng, dtype: str):
    """int32 -> float32 and the product each round once, by at most 2^-24 of the value."""
    info = np.iinfo(dtype)
    differing = 0
    for _ in range(5):
        target = QParams(F32(10 ** rng.uniform(-3, 0)), int(rng.integers(info.min, info.max)), dtype)
        factor = Fraction(float(multiplier(SOURCE, target)))
        values = sums_around_ties(rng, factor)
        for got, q in zip(requantize(values, SOURCE, target), values, strict=True):
            real = int(q) * factor
            expected = min(max(half_even(real) + int(target.zero_point), info.min), info.max)
            if int(got) != expected:
                tie = abs(abs(real - (real.__floor__())) - Fraction(1, 2))
                assert abs(int(got) - expected) == 1 and tie <= abs(real) * Fraction(2) ** -22
                differing += 1
    assert differing < 100


def test_half_even_is_exact_where_float32_is(rng):
    """With powers of two and sums below 2^24 nothing is rounded but the result."""
    target = QParams(0.25, -3, "int8")
    values = rng.integers(-(2**10), 2**10, 1000).astype(np.int32)
    got = requantize(values, QParams(2.0**-6, 5, "int32"), target)
    expected = [min(max(half_even(Fraction(int(q) - 5, 16)) - 3, -128), 127) for q in values]
    assert got.tolist() == expected


FORMS = {"tflite": double, "tflite_single": single, "single_away": away}


@pytest.mark.parametrize("rounding", FORMS)
def test_the_integer_forms_are_those_of_litert_and_relay(rng, rounding: str):
    for scale in (1e-4, 6e-5, 0.0123, 3.3e-9, 5.9e-5):
        target = QParams(F32(scale), -7, "int8", qmin=-100, qmax=90)
        fixed, shift = (int(v) for v in fixed_point.quantize_multiplier(SOURCE.scale / target.scale))
        values = sums_around_ties(rng, Fraction(float(SOURCE.scale)) / Fraction(float(target.scale)))
        expected = [min(max(FORMS[rounding](int(q), fixed, shift) - 7, -100), 90) for q in values]
        assert requantize(values, SOURCE, target, rounding).tolist() == expected


@pytest.mark.parametrize("rounding", fixed_point.REQUANTIZE_ROUNDINGS)
def test_per_channel_is_per_tensor_channel_by_channel(rng, rounding: str):
    scales, zero_points = np.array([1e-4, 3e-5, 2e-6]), np.array([5, -5, 0])
    values = rng.integers(-(10**6), 10**6, (4, 3, 5)).astype(np.int32)
    target = QParams(0.01, 7, "uint8")
    for axis in (1, -2):
        together = requantize(values, QParams(scales, zero_points, "int32", axis), target, rounding)
        for c in range(3):
            alone = requantize(values[:, c], QParams(scales[c], zero_points[c], "int32"), target, rounding)
            np.testing.assert_array_equal(together[:, c], alone)
    many = QParams([0.01, 0.02, 0.03], [7, 8, 9], "uint8", 1)
    together = requantize(values, QParams(1e-4, 0, "int32"), many, rounding)
    for c in range(3):
        alone = requantize(
            values[:, c], QParams(1e-4, 0, "int32"), QParams(many.scale[c], 7 + c, "uint8"), rounding
        )
        np.testing.assert_array_equal(together[:, c], alone)


@pytest.mark.parametrize("rounding", fixed_point.REQUANTIZE_ROUNDINGS)
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_the_same_grid_changes_nothing(rounding: str, dtype: str):
    info = np.iinfo(dtype)
    q = np.arange(info.min, info.max + 1).astype(dtype)
    grid = QParams(0.037, 11, dtype)
    np.testing.assert_array_equal(requantize(q, grid, grid, rounding), q)


ENDS = np.array([-(2**31), 2**31 - 1], np.int32)


@pytest.mark.parametrize("rounding", ["half_even", "tflite_single", "single_away"])
def test_the_ends_of_int32_saturate(rounding: str):
    assert requantize(ENDS, QParams(1.0, 0, "int32"), QParams(0.9, 3, "int8"), rounding).tolist() == [
        -128,
        127,
    ]


def test_a_left_shift_of_the_double_form_wraps_as_litert_does():
    shrinking = requantize(ENDS, QParams(0.4, 0, "int32"), QParams(0.9, 3, "int8"), "tflite")
    assert shrinking.tolist() == [-128, 127]
    growing = requantize(ENDS, QParams(1.0, 0, "int32"), QParams(0.9, 3, "int8"), "tflite")
    assert growing.tolist() == [3, 2]  # -2^31 and 2^31 - 1, shifted left by one: 0 and -2


def test_a_product_beyond_float32_saturates():
    q = np.array([-5, 0, 5], np.int32)
    got = requantize(q, QParams(1e38, 0, "int32"), QParams(1e-5, 3, "uint8"))
    assert got.tolist() == [0, 0, 255]  # 0 times infinity is not a number, which becomes the least
