"""Profile `tflite` against LiteRT's own interpreter with reference kernels, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.support import litert as engine
from tvm_qat.qnn import litert
from tvm_qat.qnn.arithmetic import F32, Array, requantize
from tvm_qat.qparams import STORAGE_RANGE, QParams

DTYPES = ("int8", "uint8", "int16")
SEEDS = range(4)


def random_grid(rng: np.random.Generator, dtype: str) -> QParams:
    if dtype == "int16":
        return QParams(F32(10.0 ** rng.uniform(-5, -2)), 0, dtype)
    low = STORAGE_RANGE[dtype][0]
    return QParams(F32(10.0 ** rng.uniform(-3, 0)), low + int(rng.integers(0, 256)), dtype)


def random_integers(rng: np.random.Generator, dtype: str, *shape: int) -> Array:
    low, high = STORAGE_RANGE[dtype]
    return rng.integers(low, high + 1, shape).astype(dtype)


def operator_of(op: str, x: Array, source: QParams, output: QParams, options: Any = None) -> Array:
    return engine.run(
        op, [engine.like(x, source)], engine.Operand(x.shape, output.dtype, output), [x], options
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["ADD", "SUB", "MUL"])
def test_sums_and_products(op: str, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lhs, rhs = random_grid(rng, dtype), random_grid(rng, dtype)
    output = random_grid(rng, dtype).with_(scale=F32(max(lhs.scale, rhs.scale) * rng.uniform(0.5, 2)))
    x, y = (random_integers(rng, dtype, 100, 100) for _ in range(2))
    options = getattr(schema, f"{op.title()}OptionsT")()
    if op != "MUL":
        options.potScaleInt16 = False
    want = engine.run(
        op,
        [engine.like(x, lhs), engine.like(y, rhs)],
        engine.Operand(x.shape, dtype, output),
        [x, y],
        options,
    )
    have = {"ADD": litert.add, "SUB": litert.subtract, "MUL": litert.multiply}[op](x, y, lhs, rhs, output)
    np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("axes", "keep"), [((1, 2), True), ((3,), False), ((0, 1, 2), False)])
def test_means(axes: tuple[int, ...], keep: bool, dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, output = random_grid(rng, dtype), random_grid(rng, dtype)
    output = output.with_(scale=F32(source.scale * rng.uniform(0.05, 1)))
    x = random_integers(rng, dtype, 3, 5, 7, 9)
    options = schema.ReducerOptionsT()
    options.keepDims = keep
    shape = np.empty(x.shape).mean(axis=axes, keepdims=keep).shape
    operands = [engine.like(x, source), engine.like(np.array(axes, np.int32), None, constant=True)]
    want = engine.run("MEAN", operands, engine.Operand(shape, dtype, output), [x], options)
    np.testing.assert_array_equal(litert.mean(x, source, output, axes, keep), want)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("scale", [0.0005, 0.01, 0.05, 0.17, 0.5, 3.0, 50.0])
@pytest.mark.parametrize("length", [1, 2, 11, 300])
def test_softmax(length: int, scale: float, dtype: str) -> None:
    rng = np.random.default_rng(length)
    low, high = STORAGE_RANGE[dtype]
    spread_out = random_integers(rng, dtype, 6000 // length, length)
    near = (rng.normal(size=spread_out.shape) * 9 + (low + high) / 2).clip(low, high).astype(dtype)
    options = schema.SoftmaxOptionsT()
    options.beta = 1.0
    source, output = QParams(F32(scale), 0, dtype), QParams(1 / 256, low, dtype)
    for x in (spread_out, near):
        want = operator_of("SOFTMAX", x, source, output, options)
        np.testing.assert_array_equal(litert.softmax(x, source, output, 1), want)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("slope", [0.1, 0.3, 1.5, -0.2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_leaky_relu(dtype: str, slope: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, output = random_grid(rng, dtype), random_grid(rng, dtype)
    x = random_integers(rng, dtype, 1, 5000)
    options = schema.LeakyReluOptionsT()
    options.alpha = slope
    want = operator_of("LEAKY_RELU", x, source, output, options)
    np.testing.assert_array_equal(litert.leaky_relu(x, source, output, slope), want)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("pair", [("int8", "int8"), ("uint8", "int8"), ("int16", "int8"), ("int16", "int16")])
def test_quantize_from_one_grid_to_another(pair: tuple[str, str], seed: int) -> None:
    rng = np.random.default_rng(seed)
    source, output = (random_grid(rng, dtype) for dtype in pair)
    x = random_integers(rng, pair[0], 1, 5000)
    np.testing.assert_array_equal(
        requantize(x, source, output, "tflite"), operator_of("QUANTIZE", x, source, output)
    )


ROUNDINGS = {
    "FULLY_CONNECTED": ("tflite_single", "tflite_single"), "CONV_2D": ("tflite", "tflite_wide"),
    "BATCH_MATMUL": ("tflite", "tflite_wide"),
}  # fmt: skip
"""Of sums of 8-bit and of 16-bit data."""


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("op", ROUNDINGS)
def test_sums_of_products(op: str, dtype: str, seed: int) -> None:
    """Every operator rounds its sums in one of three ways: 1 x 400 x 40 data, 40 x 64 weights."""
    rng = np.random.default_rng(seed)
    x, weight = random_integers(rng, dtype, 1, 400, 40), random_integers(rng, "int8", 64, 40)
    steps = F32(10.0 ** rng.uniform(-3, -1))
    source, kernel = QParams(steps, 0, dtype), QParams(F32(rng.uniform(0.001, 0.01)), 0, "int8")
    output = QParams(F32(float(steps) * kernel.scale * (900 if dtype == "int8" else 40)), 0, dtype)
    sums = x.astype(np.int64) @ weight.T.astype(np.int64)
    want = _sums(op, x, weight, source, kernel, output)
    grid = QParams(source.scale * kernel.scale, 0, "int32")
    have = requantize(sums.astype(np.int32), grid, output, ROUNDINGS[op][dtype == "int16"])
    np.testing.assert_array_equal(have, want)


def _sums(op: str, x: Array, weight: Array, source: QParams, kernel: QParams, output: QParams) -> Array:
    rows, columns, channels = x.shape[1], x.shape[2], weight.shape[0]
    if op == "CONV_2D":
        options = schema.Conv2DOptionsT()
        options.strideH = options.strideW = 1
        bias = np.zeros(channels, np.int64 if output.dtype == "int16" else np.int32)
        image, taps = x.reshape(1, 1, rows, columns), weight.reshape(channels, 1, 1, columns)
        operands = [
            engine.like(image, source),
            engine.like(taps, kernel, True),
            engine.like(bias, None, True),
        ]
        result = engine.Operand((1, 1, rows, channels), output.dtype, output)
        return engine.run(op, operands, result, [image], options).reshape(1, rows, channels)
    if op == "FULLY_CONNECTED":
        operands = [engine.like(x[0], source), engine.like(weight, kernel, True)]
        result = engine.Operand((rows, channels), output.dtype, output)
        return engine.run(op, operands, result, [x[0]], schema.FullyConnectedOptionsT())[None]
    right = np.ascontiguousarray(weight.T).astype(x.dtype)[None]
    operands = [
        engine.like(x, source),
        engine.like(right, kernel.with_(dtype=str(x.dtype), qmin=None, qmax=None)),
    ]
    result = engine.Operand((1, rows, channels), output.dtype, output)
    return engine.run(op, operands, result, [x, right], schema.BatchMatMulOptionsT())
