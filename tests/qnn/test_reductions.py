"""Averages and softmax against onnxruntime and float64."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.qnn.foreign import onnxruntime_node
from tests.support.qnn_examples import Example
from tvm_qat.ir import bindings_of, shape_of
from tvm_qat.qnn import build, pointwise
from tvm_qat.qparams import QParams

SOURCE, OUTPUT = QParams(0.1, 120, "uint8"), QParams(0.05, 100, "uint8")
LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}


def at_most_one_step_at_ties(got: np.ndarray, steps: np.ndarray, output: QParams) -> None:
    """`got` is `steps` (float64, in units of the output) rounded, but for float32's last bit."""
    clamped = np.clip(steps + int(output.zero_point), *output.range)
    distance = np.abs(got - np.rint(clamped))
    tie = np.abs(clamped - np.floor(clamped) - 0.5)
    assert distance.max() <= 1
    assert np.all(tie[distance == 1] < 4e-7 * (1 + np.abs(steps[distance == 1])))


WINDOWS = [
    # spatial shape, pool size, strides, padding, dilation
    ((9,), (3,), (2,), (1, 1), (1,)),
    ((10,), (3,), (3,), (0, 1), (2,)),
    ((6, 7), (2, 2), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((6, 7), (3, 2), (1, 2), (1, 0, 2, 1), (1, 1)),
    ((7, 8), (3, 3), (2, 3), (2, 1, 0, 2), (1, 1)),
    ((9, 9), (2, 3), (2, 2), (1, 1, 1, 1), (2, 3)),
    ((4, 4), (1, 1), (2, 2), (0, 0, 0, 0), (1, 1)),
    ((4, 4), (4, 4), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((4, 5, 6), (2, 3, 2), (2, 1, 2), (0, 1, 1, 1, 1, 0), (1, 1, 1)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include_pad", [False, True])
def test_avg_pool_is_onnxruntimes_before_rounding(rng, window, ceil_mode: bool, include_pad: bool):
    shape, pool, strides, padding, dilation = window
    x = rng.integers(0, 256, (2, 3, *shape)).astype(np.uint8)
    attrs = {
        "strides": strides,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
        "count_include_pad": include_pad,
    }
    got = pointwise.avg_pool(
        x, SOURCE, OUTPUT, pool_size=pool, padding=padding, layout=LAYOUTS[len(shape)][0], **attrs
    )
    centred = {"x": x.astype(np.float32) - 120}
    mean = onnxruntime_node(
        "AveragePool", centred, "float32", opset=22, kernel_shape=pool, strides=strides,
        pads=padding, dilations=dilation, ceil_mode=int(ceil_mode), count_include_pad=int(include_pad),
    )  # fmt: skip
    assert got.shape == mean.shape
    at_most_one_step_at_ties(got, mean.astype(np.float64) * 2, OUTPUT)
    last = pointwise.avg_pool(
        np.moveaxis(x, 1, -1),
        SOURCE,
        OUTPUT,
        pool_size=pool,
        padding=padding,
        layout=LAYOUTS[len(shape)][1],
        **attrs,
    )
    np.testing.assert_array_equal(np.moveaxis(last, -1, 1), got)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_the_type_rule_of_avg_pool_knows_the_size(rng, window, ceil_mode: bool):
    shape, pool, strides, padding, dilation = window
    attrs = {
        "pool_size": pool,
        "strides": strides,
        "padding": padding,
        "dilation": dilation,
        "ceil_mode": ceil_mode,
    }
    layout = LAYOUTS[len(shape)][0]
    example = Example(
        "qnn.avg_pool", "", (((2, 3, *shape), "uint8"),),
        lambda x: build.avg_pool(x, SOURCE, OUTPUT, layout=layout, **attrs),
    )  # fmt: skip
    (binding,) = bindings_of(example.module()["main"])
    got = pointwise.avg_pool(
        *example.arrays(rng), SOURCE, OUTPUT, count_include_pad=False, layout=layout, **attrs
    )
    assert shape_of(binding.var) == got.shape


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [[2, 3], [1], [0, 2], [0, 1, 2, 3], [3, 1]])
def test_mean_is_the_rounded_mean(rng, axis: list[int], keepdims: bool):
    for dtype, zero_point in (("uint8", 120), ("int8", -3), ("int16", 1000)):
        info = np.iinfo(dtype)
        source, output = QParams(0.1, zero_point, dtype), QParams(0.01, 7, "int8")
        q = rng.integers(info.min, info.max, (2, 3, 4, 5)).astype(dtype)
        got = pointwise.mean(q, source, output, axis=axis, keepdims=keepdims)
        centred = q.astype(np.float64) - zero_point
        steps = (
            centred.mean(tuple(axis), keepdims=keepdims) * float(np.float32(0.1)) / float(np.float32(0.01))
        )
        assert got.shape == steps.shape
        at_most_one_step_at_ties(
            np.asarray(got, np.float64).reshape(-1), np.asarray(steps).reshape(-1), output
        )


def test_mean_on_its_own_grid_rounds_half_to_even_exactly(rng):
    grid = QParams(0.1, 0, "int8")
    q = rng.integers(-128, 128, (500, 4)).astype(np.int8)
    got = pointwise.mean(q, grid, grid, axis=[1], keepdims=False)
    assert got.tolist() == [round(Fraction(int(row.sum(dtype=int)), 4)) for row in q]


def float_softmax(q: np.ndarray, scale: float) -> np.ndarray:
    powers = np.exp((q.astype(np.float64) - q.max(axis=-1, keepdims=True)) * scale)
    return powers / powers.sum(axis=-1, keepdims=True)


SHARES = {"int8": QParams(1 / 256, -128, "int8"), "uint8": QParams(1 / 256, 0, "uint8")}


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("length", [1, 2, 3, 10, 33, 100, 1000])
def test_softmax_is_within_one_step_of_float(rng, dtype: str, length: int):
    output, info = SHARES[dtype], np.iinfo(dtype)
    for scale in (1e-4, 0.01, 0.1, 0.5, 3.0):
        for low in (info.min, info.max - 3):  # all values, and nearly equal ones
            q = rng.integers(low, info.max, (50, length), endpoint=True).astype(dtype)
            got = pointwise.softmax(q, QParams(scale, 17, dtype), output, axis=1)
            steps = float_softmax(q, scale) * 256 + int(output.zero_point)
            expected = np.clip(np.rint(steps), *output.range)
            assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("length", [10, 1000])
def test_permuting_a_row_permutes_its_softmax(rng, length: int):
    q = rng.integers(-128, 128, (20, length)).astype(np.int8)
    order = rng.permutation(length)
    run = lambda x: pointwise.softmax(x, QParams(0.1), SHARES["int8"], axis=1)  # noqa: E731
    np.testing.assert_array_equal(run(q[:, order]), run(q)[:, order])


def test_softmax_sees_differences_only(rng):
    q = rng.integers(-100, 20, (20, 9)).astype(np.int8)
    plain = pointwise.softmax(q, QParams(0.1, 3), SHARES["int8"], axis=1)
    np.testing.assert_array_equal(
        pointwise.softmax(q + np.int8(100), QParams(0.1, -9), SHARES["int8"], axis=1), plain
    )


def test_softmax_over_another_axis_is_the_same_along_it(rng):
    q = rng.integers(-128, 128, (4, 9, 5)).astype(np.int8)
    inner = pointwise.softmax(q, QParams(0.1), SHARES["int8"], axis=1)
    last = pointwise.softmax(np.moveaxis(q, 1, 2), QParams(0.1), SHARES["int8"], axis=2)
    np.testing.assert_array_equal(np.moveaxis(last, 2, 1), inner)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 1000, 2**16])
def test_the_sum_of_the_greatest_powers_fits_int32(length: int):
    table = pointwise.exp_table(1e-9, length)
    assert table.dtype == np.int32 and table.shape == (256,)
    assert 2**28 < int(table[0]) * length <= 2**30
    assert np.all(np.diff(pointwise.exp_table(0.1, length)) <= 0)
