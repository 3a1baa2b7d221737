"""quantize, dequantize: against onnxruntime, exact arithmetic and values recorded from torch."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from tests.qnn.foreign import onnxruntime_node
from tvm_qat.fixed_point import ROUNDINGS
from tvm_qat.qnn.arithmetic import QUANTIZE_FORMULAS, dequantize, multiply_add, quantize
from tvm_qat.qparams import QParams, nudged_range

F32 = np.float32
DTYPES = ("int8", "uint8", "int16", "uint16")
DIRECTED = ("floor", "ceil", "toward_zero", "away_from_zero", "sign")
TO_THE_ENDS = [formula for formula in QUANTIZE_FORMULAS if not formula.endswith("sign")]


def near_ties(rng: np.random.Generator, params: QParams, count: int = 5000) -> np.ndarray:
    """Floats at and right beside the borders between steps, some beyond the range."""
    low, high = params.range
    steps = rng.integers(low - 20, high + 20, count) + rng.choice([0, 0.25, 0.5], count)
    x = ((steps - int(params.zero_point)) * params.scale).astype(F32)
    beside = [x, np.nextafter(x, F32(np.inf)), np.nextafter(x, F32(-np.inf))]
    return np.concatenate([*beside, F32([0, -0.0, 1e-45, 3e38, -3e38, np.inf, -np.inf])])


def random_grid(rng: np.random.Generator, dtype: str) -> QParams:
    info = np.iinfo(dtype)
    return QParams(F32(10 ** rng.uniform(-5, 2)), int(rng.integers(info.min, info.max)), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_quantize_is_onnxruntimes(rng, dtype: str):
    for _ in range(5):
        grid = random_grid(rng, dtype)
        x = near_ties(rng, grid)
        inputs = {"x": x, "s": np.asarray(grid.scale, F32), "z": grid.zero_point.astype(dtype)}
        np.testing.assert_array_equal(quantize(x, grid), onnxruntime_node("QuantizeLinear", inputs, dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_quantize_and_dequantize_per_channel_are_onnxruntimes(rng, dtype: str, axis: int):
    info, shape = np.iinfo(dtype), (5, 6, 7)
    scale = (10 ** rng.uniform(-3, 1, shape[axis])).astype(F32)
    zero_point = rng.integers(info.min, info.max, shape[axis]).astype(dtype)
    grid = QParams(scale, zero_point, dtype, axis)
    x = (rng.normal(size=shape) * 50).astype(F32)
    parameters = {"s": scale, "z": zero_point}
    q = onnxruntime_node("QuantizeLinear", {"x": x, **parameters}, dtype, axis=axis)
    np.testing.assert_array_equal(quantize(x, grid), q)
    np.testing.assert_array_equal(quantize(x, grid.with_(axis=axis - 3)), q)
    real = onnxruntime_node("DequantizeLinear", {"x": q, **parameters}, "float32", axis=axis)
    np.testing.assert_array_equal(dequantize(q, grid), real)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantize_of_every_value_is_onnxruntimes(rng, dtype: str):
    info, grid = np.iinfo(dtype), random_grid(rng, dtype)
    q = np.arange(info.min, info.max + 1).astype(dtype)
    inputs = {"x": q, "s": np.asarray(grid.scale, F32), "z": grid.zero_point.astype(dtype)}
    np.testing.assert_array_equal(
        dequantize(q, grid), onnxruntime_node("DequantizeLinear", inputs, "float32")
    )


def test_dequantize_of_int32_is_onnxruntimes(rng):
    q = np.concatenate([rng.integers(-(2**31), 2**31, 1000), [-(2**31), 2**31 - 1, 2**24 + 1]]).astype(
        np.int32
    )
    inputs = {"x": q, "s": F32(0.1), "z": np.array(0, np.int32)}
    expected = onnxruntime_node("DequantizeLinear", {n: np.asarray(v) for n, v in inputs.items()}, "float32")
    np.testing.assert_array_equal(dequantize(q, QParams(F32(0.1), 0, "int32")), expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dequantize_undoes_quantize_on_the_grid(rng, dtype: str):
    info, grid = np.iinfo(dtype), random_grid(rng, dtype)
    q = np.arange(info.min, info.max + 1).astype(dtype)
    for formula in QUANTIZE_FORMULAS:
        if not formula.endswith(DIRECTED):  # these fall off the grid by an ulp
            np.testing.assert_array_equal(quantize(dequantize(q, grid), grid, formula), q, err_msg=formula)


@pytest.mark.parametrize("formula", ROUNDINGS)
def test_every_rounding_is_exact_where_division_is(rng, formula: str):
    """With a power of two as scale, x / scale is exact, so only the rounding is left."""
    grid = QParams(0.25, 3, "int16")
    x = (rng.integers(-1000, 1000, 2000) / 8).astype(F32)
    expected = [int(ROUNDINGS[formula](F32(v * 4))) + 3 for v in x]
    assert quantize(x, grid, formula).tolist() == expected


@pytest.mark.parametrize("formula", TO_THE_ENDS)
@pytest.mark.parametrize("dtype", [*DTYPES, "int32"])
def test_nan_gives_the_least_and_infinities_the_ends(formula: str, dtype: str):
    grid = QParams(0.1, 5, dtype) if dtype != "int32" else QParams(0.1, 0, dtype, qmin=-(2**20), qmax=2**20)
    x = F32([np.nan, -np.inf, np.inf, -3e38, 3e38])
    low, high = grid.range
    assert quantize(x, grid, formula).tolist() == [low, low, high, low, high]


@pytest.mark.parametrize("formula", TO_THE_ENDS)
def test_a_narrow_range_clamps_within_the_dtype(rng, formula: str):
    grid = QParams(0.5, 1, "int8", qmin=-7, qmax=6)
    x = (rng.normal(size=1000) * 8).astype(F32)
    got = quantize(x, grid, formula)
    assert got.dtype == np.int8 and (got.min(), got.max()) == (-7, 6)
    wide = quantize(x, grid.with_(qmin=None, qmax=None), formula)
    np.testing.assert_array_equal(got, np.clip(wide, -7, 6))


def test_int32_saturates_at_the_greatest_float_below_2_31():
    """As documented at LARGEST_INT32_FLOAT: 2^31 - 128, on both sides."""
    grid = QParams(1.0, 0, "int32")
    got = quantize(F32([3e9, np.inf, 2.0**31, 2147483520, -3e9, -np.inf]), grid)
    assert got.tolist() == [2147483520] * 4 + [-2147483520] * 2


@pytest.mark.parametrize("zero_point", [1, 63, 64, 100, 138, 1000, 2**24 + 1, 2**30 + 77, 2**31 - 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_int32_with_a_zero_point_saturates_and_never_wraps(zero_point: int, sign: int):
    grid = QParams(1.0, sign * zero_point, "int32")
    low, high = (int(v) for v in quantize(F32([-np.inf, np.inf]), grid))
    assert low < high
    assert -(2**31) <= low <= -(2**31) + 128 + max(0, sign * zero_point)
    assert 2**31 - 1 >= high >= 2**31 - 256 - max(0, -sign * zero_point)


def test_a_range_that_float32_cannot_hold_is_not_left():
    grid = QParams(1.0, 0, "int32", qmin=-(2**24) - 3, qmax=2**24 + 3)
    low, high = quantize(F32([-np.inf, np.inf]), grid).tolist()
    assert (low, high) == (-(2**24) - 2, 2**24 + 2)


# Recorded from torch 2.13 on a CPU, at ties where the formulas differ; on 8 million more values of
# that kind neither formula differed from its source anywhere.
TORCH_GRID = QParams(F32([0.0123, 0.37, 1.9]), [3, 128, 200], "uint8", 0)
TORCH_X = F32([
    [0.91635, 1.1008499, 0.8302499, 0.17834999, 1.6420499, 0.42434996, 2.2078497, 1e3, -1e3],
    [20.905, 1.295, 16.835, 12.025002, 39.034996, 40.885002, 25.345001, 1e3, -1e3],
    [-213.75, 14.249999, -21.849998, 31.350002, 37.049995, 10.449999, 12.35, 1e3, -1e3],
])  # fmt: skip
TORCH_FAKE_QUANTIZE = [  # fake_quantize_per_channel_affine, and _per_tensor_affine row by row
    [78, 93, 71, 17, 137, 37, 183, 255, 0],
    [185, 132, 174, 161, 233, 239, 197, 255, 0],
    [87, 208, 188, 217, 219, 205, 207, 255, 0],
]
TORCH_QUANTIZE_PER_CHANNEL = [
    [78, 92, 70, 18, 136, 38, 182, 255, 0],
    [184, 132, 174, 160, 234, 238, 196, 255, 0],
    [87, 208, 188, 216, 220, 206, 206, 255, 0],
]
TORCH_QUANTIZE_PER_TENSOR = [
    [78, 92, 70, 18, 136, 38, 182, 255, 0],
    [184, 132, 174, 160, 233, 239, 196, 255, 0],
    [87, 208, 188, 216, 220, 206, 206, 255, 0],
]


def test_reciprocal_half_even_is_torchs_fake_quantize():
    assert quantize(TORCH_X, TORCH_GRID, "reciprocal_half_even").tolist() == TORCH_FAKE_QUANTIZE
    for row, expected in enumerate(TORCH_FAKE_QUANTIZE):
        alone = QParams(TORCH_GRID.scale[row], TORCH_GRID.zero_point[row], "uint8")
        assert quantize(TORCH_X[row], alone, "reciprocal_half_even").tolist() == expected
    assert quantize(TORCH_X, TORCH_GRID, "half_even").tolist() != TORCH_FAKE_QUANTIZE


def test_zero_point_inside_is_torchs_quantize_per_channel():
    got = quantize(TORCH_X, TORCH_GRID, "reciprocal_zero_point_inside")
    assert got.tolist() == TORCH_QUANTIZE_PER_CHANNEL


def test_fused_is_torchs_quantize_per_tensor():
    for row, expected in enumerate(TORCH_QUANTIZE_PER_TENSOR):
        alone = QParams(TORCH_GRID.scale[row], TORCH_GRID.zero_point[row], "uint8")
        assert quantize(TORCH_X[row], alone, "reciprocal_fused").tolist() == expected


def test_a_fused_multiply_add_is_rounded_once(rng):
    """Against exact fractions, with addends that put the sum beside a tie of float32."""
    x = (rng.normal(size=3000) * 10.0 ** rng.integers(-30, 18, 3000)).astype(F32)
    y = (rng.normal(size=3000) * 10.0 ** rng.integers(-8, 8, 3000)).astype(F32)
    product = x.astype(np.float64) * y.astype(np.float64)
    near = np.where(rng.random(3000) < 0.5, -product, product * 2.0 ** rng.integers(20, 50, 3000))
    z = np.concatenate([near[:2000], rng.integers(-255, 256, 1000)]).astype(F32)
    for got, a, b, c in zip(multiply_add(x, y, z), x, y, z, strict=True):
        exact = Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c))
        beside = [np.nextafter(got, F32(side), dtype=F32) for side in (-np.inf, np.inf)]
        distance = abs(Fraction(float(got)) - exact)
        for other in beside:
            further = abs(Fraction(float(other)) - exact)
            even = int(got.view(np.int32)) % 2 == 0
            assert distance < further or (distance == further and even), (a, b, c)


def test_the_nudged_formula_is_tensorflows(rng):
    """floor((clamp(x) - nudged_min) / scale + 0.5), the division as a product with the inverse."""
    for low, high in ((-1.0, 1.0), (0.0, 6.0), (-0.3, 2.7), (-1e-3, 5e-3)):
        grid = nudged_range(low, high)
        scale, inverse = F32(grid.scale), F32(F32(1) / F32(grid.scale))
        bounds = [F32(F32(q - int(grid.zero_point)) * scale) for q in grid.range]
        x = near_ties(rng, grid, 300)
        expected = [
            math.floor(F32(F32(F32(min(max(v, bounds[0]), bounds[1])) - bounds[0]) * inverse) + F32(0.5))
            for v in x
        ]
        np.testing.assert_array_equal(quantize(x, grid, "nudged_range"), expected)


@pytest.mark.parametrize("formula", ["half_even", "half_away", "half_up", "half_down"])
def test_quantize_is_the_nearest_step_of_the_exact_quotient(rng, formula: str):
    """Differs from exact rational arithmetic only where float32 rounds the quotient onto a tie."""
    grid = random_grid(rng, "int16")
    x = near_ties(rng, grid, 300)[:-7]
    exact = [Fraction(float(v)) / Fraction(float(grid.scale)) for v in x]
    for got, real, value in zip(quantize(x, grid, formula), exact, x, strict=True):
        clamped = min(max(real + int(grid.zero_point), Fraction(-32768)), Fraction(32767))
        distance = abs(int(got) - clamped)
        slack = abs(real) * Fraction(2) ** -23
        assert distance <= Fraction(1, 2) + slack, value
