"""One or more calls of every operator of the dialect, with random operands to evaluate them on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, const, define, tvm, with_source
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

A = QParams(0.1, 3, "uint8")
B = QParams(0.05, -7, "int8")
C = QParams(0.07, 100, "uint8")
WIDE = QParams(0.001, 5, "int16")
NARROW = QParams(0.2, 1, "int8", qmin=-7, qmax=7)
CHANNELS = QParams(np.linspace(0.1, 0.3, 3), np.array([0, -5, 9]), "int8", axis=1)
SUMS = QParams(np.float64(np.float32(0.1)) * np.array([0.01, 0.02, 0.03]), 0, "int32", axis=1)
PLANE = {"strides": [1, 2], "padding": [1, 0, 2, 1], "dilation": [1, 1]}


@dataclass(frozen=True)
class Example:
    """A call of `op` on variables of the given (shape, dtype); `call` builds it."""

    op: str
    label: str
    types: tuple[tuple[tuple[int, ...], str], ...]
    call: Callable[..., Any] = field(repr=False)

    def module(self, symbolic_batch: bool = False) -> IRModule:
        """`main` with this call alone; its source node is called `example`."""
        batch = tvm.tirx.Var("n", "int64")
        builder = BlockBuilder()
        variables = [
            Var(f"x{i}", TensorType((batch, *shape[1:]) if symbolic_batch else shape, dtype))
            for i, (shape, dtype) in enumerate(self.types)
        ]

        def emitted() -> Any:
            return builder.emit_output(with_source(self.call(*variables), "example"))

        define(builder, "main", variables, emitted)
        return builder.get()

    def arrays(self, rng: np.random.Generator, batch: int | None = None) -> list[Any]:
        """Integers of the whole range, floats around zero; `batch` replaces the first dimension."""
        shapes = [(shape if batch is None else (batch, *shape[1:]), dtype) for shape, dtype in self.types]
        return [random_array(rng, shape, dtype) for shape, dtype in shapes]


def random_array(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Any:
    if dtype.startswith("float"):
        return (rng.normal(size=shape) * 8).astype(dtype)
    info = np.iinfo(dtype if dtype != "int32" else "int16")
    return rng.integers(info.min, info.max, shape, endpoint=True).astype(dtype)


def weight(*shape: int, dtype: str = "int8") -> Any:
    return const(random_array(np.random.default_rng(len(shape)), shape, dtype))


def _elementwise(name: str) -> list[Example]:
    op = f"qnn.{name}"
    plane, row = (2, 3, 4), (3, 1)

    def of(x: QParams, y: QParams, output: QParams) -> Callable[..., Any]:
        return lambda lhs, rhs: qnn.elementwise(name, lhs, rhs, x, y, output)

    return [
        Example(op, "same shape", ((plane, "uint8"), (plane, "int8")), of(A, B, C)),
        Example(op, "narrow output", ((plane, "int8"), (plane, "int8")), of(B, B, NARROW)),
        Example(
            op, "broadcast constant", ((plane, "int16"),),
            lambda x: qnn.elementwise(name, x, weight(*row), WIDE, B, B),
        ),
        Example(op, "per channel", ((plane, "int8"), (plane, "int8")), of(CHANNELS, B, C)),
        *_as_litert(name, plane),
    ]  # fmt: skip


def _as_litert(name: str, shape: tuple[int, ...]) -> list[Example]:
    if name == "divide":
        return []
    wide = QParams(0.003, 0, "int16")

    def of(x: QParams, y: QParams) -> Callable[..., Any]:
        return lambda lhs, rhs: qnn.elementwise(name, lhs, rhs, x, y, y, "tflite")

    return [
        Example(f"qnn.{name}", f"tflite {x.dtype}", ((shape, x.dtype), (shape, x.dtype)), of(x, y))
        for x, y in ((B, QParams(0.21, 9, "int8")), (WIDE, wide))
    ]  # fmt: skip


def _linear() -> list[Example]:
    line = {"strides": [2], "padding": [1, 2], "dilation": [2]}
    cube = {"strides": [1, 2, 1], "padding": [1, 0, 1, 0, 1, 1], "dilation": [1, 1, 1]}
    transposed = {"strides": [2, 3], "padding": [1, 0, 0, 2], "output_padding": [1, 0], "dilation": [1, 2]}
    zero_points = np.array([1, -2, 3, 0])
    return [
        Example("qnn.conv1d", "dilated", (((2, 3, 9), "uint8"),), lambda x: qnn.conv(
            x, weight(4, 3, 3), 7, data_layout="NCW", kernel_layout="OIW", **line)),
        Example("qnn.conv2d", "NCHW", (((2, 3, 5, 6), "uint8"),), lambda x: qnn.conv(
            x, weight(4, 3, 3, 2), 128, zero_points, **PLANE)),
        Example("qnn.conv2d", "grouped", (((2, 4, 5, 6), "int8"),), lambda x: qnn.conv(
            x, weight(6, 2, 3, 2), -5, groups=2, **PLANE)),
        Example("qnn.conv2d", "NHWC", (((2, 5, 6, 3), "int8"),), lambda x: qnn.conv(
            x, weight(4, 3, 2, 3), -5, data_layout="NHWC", kernel_layout="OHWI", **PLANE)),
        Example("qnn.conv2d", "depthwise", (((2, 5, 6, 4), "uint8"),), lambda x: qnn.conv(
            x, weight(4, 3, 2, 1), 9, groups=4, data_layout="NHWC", kernel_layout="OHWI", **PLANE)),
        Example("qnn.conv3d", "NCDHW", (((2, 3, 4, 5, 4), "int8"),), lambda x: qnn.conv(
            x, weight(2, 3, 2, 2, 3), 4, data_layout="NCDHW", kernel_layout="OIDHW", **cube)),
        Example("qnn.conv2d_transpose", "NCHW", (((2, 3, 4, 5), "uint8"),), lambda x: qnn.conv2d_transpose(
            x, weight(3, 4, 3, 2), 17, zero_points, **transposed)),
        Example("qnn.conv2d_transpose", "NHWC", (((2, 4, 5, 4), "int8"),), lambda x: qnn.conv2d_transpose(
            x, weight(4, 3, 2, 2), 17, groups=2, data_layout="NHWC", kernel_layout="IHWO", **transposed)),
        Example("qnn.dense", "matrix", (((2, 7), "uint8"),), lambda x: qnn.dense(
            x, weight(4, 7), 128, zero_points)),
        Example("qnn.dense", "batched", (((2, 3, 7), "int8"),), lambda x: qnn.dense(x, weight(5, 7), -3)),
        Example("qnn.batch_matmul", "two activations", (((2, 3, 4), "uint8"), ((2, 4, 5), "int8")),
            lambda x, y: qnn.batch_matmul(x, y, 100, -1)),
    ]  # fmt: skip


def _boundary() -> list[Example]:
    data, table = (2, 3, 4), np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8)
    return [
        Example("qnn.quantize", "per tensor", ((data, "float32"),), lambda x: qnn.quantize(x, A)),
        Example("qnn.quantize", "per channel", ((data, "float32"),), lambda x: qnn.quantize(x, CHANNELS)),
        Example("qnn.quantize", "float16", ((data, "float16"),), lambda x: qnn.quantize(x, WIDE, "floor")),
        Example("qnn.quantize", "at run time", ((data, "float32"),), lambda x: qnn.quantize_at_run_time(
            x, const(0.1, "float32"), const(3, "int32"), "uint8", 0, 255)),
        Example("qnn.dequantize", "per tensor", ((data, "uint8"),), lambda x: qnn.dequantize(x, A)),
        Example("qnn.dequantize", "per channel", ((data, "int8"),), lambda x: qnn.dequantize(x, CHANNELS)),
        Example("qnn.dequantize", "at run time", ((data, "int8"),), lambda x: qnn.dequantize_at_run_time(
            x, const([0.1, 0.2, 0.3], "float32"), const([0, 1, 2], "int32"), 1)),
        Example("qnn.requantize", "sums", ((data, "int32"),), lambda x: qnn.requantize(x, SUMS, A)),
        Example("qnn.requantize", "tflite", ((data, "int32"),), lambda x: qnn.requantize(
            x, SUMS, NARROW, "tflite")),
        Example("qnn.requantize", "single", ((data, "int16"),), lambda x: qnn.requantize(
            x, WIDE, B, "tflite_single")),
        Example("qnn.requantize", "away", ((data, "int32"),), lambda x: qnn.requantize(
            x, SUMS, A, "single_away")),
        Example("qnn.fake_quantize", "per channel", ((data, "float32"),), lambda x: qnn.fake_quantize(
            x, CHANNELS, "reciprocal_half_even")),
        Example("qnn.fake_quantize_range", "per tensor", ((data, "float32"),), lambda x: (
            qnn.fake_quantize_range(x, -3.0, 4.0, bits=6, narrow_range=True))),
        Example("qnn.fake_quantize_range", "per channel", ((data, "float32"),), lambda x: (
            qnn.fake_quantize_range(x, [-1.0, -2.0, 0.0], [1.0, 0.0, 5.0], signed=True, axis=1))),
        Example("qnn.lut", "int8", ((data, "int8"),), lambda x: qnn.lut(x, table)),
        Example("qnn.lut", "float entries", ((data, "uint8"),), lambda x: qnn.lut(x, table / np.float32(7))),
    ]  # fmt: skip


def _reductions() -> list[Example]:
    window = {"pool_size": [3, 2], "strides": [2, 2], "padding": [1, 0, 1, 1], "dilation": [1, 2]}
    return [
        Example("qnn.concatenate", "two grids", (((2, 3, 4), "uint8"), ((2, 3, 5), "int8")),
            lambda x, y: qnn.concatenate([x, y], [A, B], C, 2)),
        Example("qnn.avg_pool", "NCHW", (((2, 3, 6, 7), "uint8"),), lambda x: qnn.avg_pool(
            x, A, C, ceil_mode=True, **window)),
        Example("qnn.avg_pool", "NHWC", (((2, 6, 7, 3), "int8"),), lambda x: qnn.avg_pool(
            x, B, C, count_include_pad=True, layout="NHWC", **window)),
        Example("qnn.avg_pool", "NCW", (((2, 3, 7), "int8"),), lambda x: qnn.avg_pool(
            x, B, B, pool_size=[3], strides=[1], padding=[0, 0], dilation=[1], layout="NCW")),
        Example("qnn.mean", "dropped axes", (((2, 3, 4, 5), "uint8"),), lambda x: qnn.mean(
            x, A, C, [2, 3], False)),
        Example("qnn.mean", "kept axis", (((2, 3, 4), "int8"),), lambda x: qnn.mean(x, B, A, [1], True)),
        Example("qnn.softmax", "last axis", (((2, 3, 9), "int8"),), lambda x: qnn.softmax(
            x, B, QParams(1 / 256, -128, "int8"), 2)),
        Example("qnn.avg_pool", "tflite", (((2, 6, 7, 3), "int8"),), lambda x: qnn.avg_pool(
            x, B, B, layout="NHWC", rounding="tflite", **window)),
        Example("qnn.mean", "tflite", (((2, 3, 4, 5), "int16"),), lambda x: qnn.mean(
            x, WIDE, B, [1, 2], True, "tflite")),
        Example("qnn.softmax", "tflite", (((2, 9, 3), "uint8"),), lambda x: qnn.softmax(
            x, A, QParams(1 / 256, 0, "uint8"), 1, "tflite")),
        Example("qnn.softmax", "inner axis", (((2, 9, 3), "uint8"),), lambda x: qnn.softmax(
            x, A, QParams(1 / 256, 0, "uint8"), 1)),
    ]  # fmt: skip


_ELEMENTWISE = ("add", "subtract", "multiply", "divide", "minimum", "maximum")
EXAMPLES: tuple[Example, ...] = (
    *_boundary(),
    *_linear(),
    *(example for name in _ELEMENTWISE for example in _elementwise(name)),
    *_reductions(),
)
IDS = [f"{example.op} {example.label}" for example in EXAMPLES]
