"""Operators on two quantized tensors: against real arithmetic in float64, and their corner cases."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from tvm_qat.qnn import pointwise
from tvm_qat.qnn.arithmetic import requantize
from tvm_qat.qparams import QParams

REAL = {
    "add": operator.add, "subtract": operator.sub, "multiply": operator.mul, "divide": operator.truediv,
    "minimum": np.minimum, "maximum": np.maximum,
}  # fmt: skip


def all_pairs(x_dtype: str, y_dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """All 65,536 pairs of 8-bit values, as a column and a row."""
    x, y = (np.arange(np.iinfo(d).min, np.iinfo(d).max + 1).astype(d) for d in (x_dtype, y_dtype))
    return x[:, None], y[None, :]


def real(q: np.ndarray, params: QParams) -> np.ndarray:
    return (q.astype(np.int64) - int(params.zero_point)) * float(np.float32(params.scale))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize(
    "dtypes", [("uint8", "int8", "uint8"), ("int8", "int8", "int8"), ("uint8", "uint8", "int16")]
)
def test_at_most_one_step_from_the_real_result_and_only_at_ties(rng, name: str, dtypes):
    x, y = all_pairs(*dtypes[:2])
    for _ in range(3):
        grids = [
            QParams(np.float32(10 ** rng.uniform(-3, 0)), int(rng.integers(0, 100)), dtype)
            for dtype in dtypes
        ]
        lhs, rhs, output = grids
        got = getattr(pointwise, name)(x, y, lhs, rhs, output).astype(np.int64)
        with np.errstate(divide="ignore", invalid="ignore"):
            steps = REAL[name](real(x, lhs), real(y, rhs)) / float(np.float32(output.scale))
        steps = np.where(np.isnan(steps), -np.inf, steps)
        clamped = np.clip(steps + int(output.zero_point), *output.range)
        expected = np.rint(clamped).astype(np.int64)
        distance = np.abs(got - expected)
        assert distance.max() <= 1
        tie = np.abs(np.abs(clamped - np.floor(clamped)) - 0.5)
        size = np.maximum(np.abs(steps), (np.abs(real(x, lhs)) + np.abs(real(y, rhs))) / float(output.scale))
        assert np.all(tie[distance == 1] <= 4e-7 * size[distance == 1])


@pytest.mark.parametrize("name", ["minimum", "maximum"])
def test_the_lesser_and_greater_are_chosen_after_requantizing(rng, name: str):
    x, y = all_pairs("uint8", "int8")
    lhs, rhs, output = QParams(0.1, 3, "uint8"), QParams(0.07, -9, "int8"), QParams(0.11, 50, "uint8")
    got = getattr(pointwise, name)(x, y, lhs, rhs, output)
    pair = requantize(x, lhs, output), requantize(y, rhs, output)
    np.testing.assert_array_equal(got, getattr(np, name)(*pair))


def test_division_by_zero_saturates_and_zero_by_zero_is_the_least():
    lhs, rhs, output = QParams(0.1, 10, "uint8"), QParams(0.2, 5, "uint8"), QParams(0.5, 100, "uint8")
    x, y = np.array([9, 10, 11, 10], np.uint8), np.array([5, 5, 5, 6], np.uint8)
    assert pointwise.divide(x, y, lhs, rhs, output).tolist() == [0, 0, 255, 100]


@pytest.mark.parametrize("name", REAL)
def test_per_channel_operands_are_per_tensor_channel_by_channel(rng, name: str):
    x, y = (rng.integers(-128, 128, (2, 3, 4)).astype(np.int8) for _ in range(2))
    lhs = QParams([0.1, 0.2, 0.3], [1, 2, 3], "int8", 1)
    rhs = QParams([0.3, 0.1, 0.2], 5, "int8", -2)
    output = QParams(0.15, -3, "int8")
    together = getattr(pointwise, name)(x, y, lhs, rhs, output)
    for c in range(3):
        one, two = QParams(lhs.scale[c], lhs.zero_point[c]), QParams(rhs.scale[c], 5)
        alone = getattr(pointwise, name)(x[:, c], y[:, c], one, two, output)
        np.testing.assert_array_equal(together[:, c], alone)


@pytest.mark.parametrize("name", REAL)
def test_operands_broadcast_as_in_numpy(rng, name: str):
    x, y = rng.integers(-128, 128, (2, 1, 4)).astype(np.int8), rng.integers(-128, 128, (3, 1)).astype(np.int8)
    grids = QParams(0.1, 3), QParams(0.2, -4), QParams(0.3, 5)
    function = getattr(pointwise, name)
    full = [np.ascontiguousarray(v) for v in np.broadcast_arrays(x, y)]
    np.testing.assert_array_equal(function(x, y, *grids), function(*full, *grids))


def test_concatenate_requantizes_what_is_on_another_grid(rng):
    parts = [rng.integers(0, 256, (2, n)).astype(np.uint8) for n in (3, 1, 4)]
    output = QParams(0.1, 3, "uint8")
    inputs = [output, QParams(0.2, 3, "uint8"), QParams(0.1, 4, "uint8")]
    for axis in (1, -1):
        got = pointwise.concatenate(parts, inputs, output, axis=axis)
        expected = [requantize(p, grid, output) for p, grid in zip(parts, inputs, strict=True)]
        np.testing.assert_array_equal(got, np.concatenate(expected, 1))
    np.testing.assert_array_equal(got[:, :3], parts[0])


def test_concatenate_into_a_narrow_range_clamps_every_part(rng):
    part = np.arange(-128, 128).astype(np.int8)
    got = pointwise.concatenate([part], [QParams(0.1)], QParams(0.1, qmin=-7, qmax=7), axis=0)
    np.testing.assert_array_equal(got, np.clip(part, -7, 7))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("entries", ["int8", "uint8", "int16", "float32"])
def test_a_table_maps_all_256_values(rng, dtype: str, entries: str):
    q = np.arange(np.iinfo(dtype).min, np.iinfo(dtype).max + 1).astype(dtype)
    table = (
        rng.normal(size=256).astype(entries)
        if entries == "float32"
        else rng.integers(0, 100, 256).astype(entries)
    )
    got = pointwise.lut(q, table)
    np.testing.assert_array_equal(got, table)
    assert got.dtype == table.dtype
    np.testing.assert_array_equal(pointwise.lut(q[::-1].reshape(4, 64), table), table[::-1].reshape(4, 64))
