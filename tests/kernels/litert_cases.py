"""Cases of LiteRT's arithmetic: all pairs of 8 bits, random 16 bits, both ends of multipliers and shifts."""

from __future__ import annotations

import numpy as np

from tests.kernels.harness import Array, Case, case
from tests.kernels.linear_cases import integers
from tests.kernels.pointwise_cases import accumulators, pairs
from tvm_qat.ir import Expr, const
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

LHS, RHS, OUT = QParams(0.031, -7, "int8"), QParams(0.0043, 100, "int8"), QParams(0.027, 5, "int8")
WIDE, WIDER = QParams(0.0002, 0, "int16"), QParams(0.0007, 0, "int16")


def elementwise_cases() -> list[Case]:
    x, y = pairs("int8", "int8")
    rng = np.random.default_rng(3)
    wide, other = (integers(rng, "int16", 70, 33) for _ in range(2))
    narrow = OUT.with_(qmin=-3, qmax=90)

    def of(name: str, lhs: QParams, rhs: QParams, output: QParams) -> object:
        return lambda a, b: qnn.elementwise(name, a, b, lhs, rhs, output, "tflite")

    names = ("add", "subtract", "multiply", "minimum", "maximum")
    return [
        *(case(f"{name} int8", of(name, LHS, RHS, OUT), x, y) for name in names),
        *(case(f"{name} int16", of(name, WIDE, WIDER, WIDER), wide, other) for name in names),
        case("add in a range", of("add", RHS, LHS, narrow), x, y),
        case("broadcast", of("add", LHS, RHS, OUT), x, y[:1]),
    ]


def requantize_cases() -> list[Case]:
    """Right shifts of 0, 1 and many, left shifts, per channel a mixture."""
    sums = accumulators()
    image = integers(np.random.default_rng(4), "int32", 5, 3)
    mixed = QParams(np.array([3.0, 0.9, 1e-4]), 0, "int32", axis=1)

    def by(real: float) -> object:
        return lambda v: qnn.requantize(v, QParams(real, 0, "int32"), OUT_ONE, "tflite")

    return [
        *(case(f"by {real}", by(real), sums) for real in (0.7, 0.3, 1e-3, 1e-8, 1.0, 5.7)),
        case("per channel", lambda v: qnn.requantize(v, mixed, OUT_ONE, "tflite"), image),
        case("wide", lambda v: qnn.requantize(v, WIDE.with_(dtype="int32"), WIDER, "tflite_wide"), sums),
        case("wide channels", lambda v: qnn.requantize(v, mixed, WIDER, "tflite_wide"), image),
        case("of bytes", lambda v: qnn.requantize(v, LHS, OUT, "tflite"), integers(RNG, "int8", 300)),
        case("of 16 bits", lambda v: qnn.requantize(v, WIDE, OUT, "tflite"), integers(RNG, "int16", 3000)),
    ]  # fmt: skip


OUT_ONE = QParams(1.0, -3, "int8")
RNG = np.random.default_rng(5)


def reduction_cases() -> list[Case]:
    small, plane = integers(RNG, "int8", 2, 7, 8, 5), integers(RNG, "int16", 2, 7, 8, 5)
    window = {"pool_size": [3, 2], "strides": [2, 1], "dilation": [1, 1], "layout": "NHWC"}

    def pool(grid: QParams, *padding: int) -> object:
        return lambda v: qnn.avg_pool(v, grid, grid, padding=list(padding), rounding="tflite", **window)

    return [
        case("pool", pool(LHS, 0, 0, 0, 0), small),
        case("padded pool", pool(LHS, 1, 1, 1, 0), small),
        case("pool of 16 bits", pool(WIDE, 0, 1, 1, 0), plane),
        case("mean", lambda v: qnn.mean(v, LHS, OUT, [1, 2], False, "tflite"), small),
        case("mean of channels", lambda v: qnn.mean(v, LHS, RHS, [3], True, "tflite"), small),
        case("mean of 16 bits", lambda v: qnn.mean(v, WIDE, WIDER, [2], True, "tflite"), plane),
        *(softmax(scale, "int8", 3, 37) for scale in (0.0005, 0.05, 0.3, 20.0)),
        softmax(0.1, "uint8", 5, 1), softmax(0.2, "uint8", 4, 300),
        case("inner softmax", _softmax("int8", 0.1, 1), integers(RNG, "int8", 2, 9, 3)),
    ]  # fmt: skip


def softmax(scale: float, dtype: str, *shape: int) -> Case:
    x: Array = np.clip(RNG.normal(size=shape) * 30 + (0 if dtype == "int8" else 128), 0, 100).astype(dtype)
    return case(f"softmax {scale} {shape}", _softmax(dtype, scale, len(shape) - 1), x)


def _softmax(dtype: str, scale: float, axis: int) -> object:
    output = QParams(1 / 256, -128 if dtype == "int8" else 0, dtype)

    def build(v: Expr) -> Expr:
        return qnn.softmax(v, QParams(scale, 0, dtype), output, axis, "tflite")

    return build


def fused_cases() -> list[Case]:
    """A convolution with its requantize and a residual, one kernel."""
    x, skip = integers(RNG, "int8", 1, 5, 6, 8), integers(RNG, "int8", 1, 5, 6, 40)
    weight = integers(RNG, "int8", 40, 3, 3, 8)
    sums = QParams(RNG.uniform(1e-5, 1e-3, 40), 0, "int32", axis=3)
    window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}

    def graph(v: Expr, residual: Expr) -> list[object]:
        return [
            qnn.conv(v, const(weight), -7, data_layout="NHWC", kernel_layout="OHWI", **window),
            lambda acc: qnn.requantize(acc, sums, RHS, "tflite"),
            lambda q: qnn.elementwise("add", q, residual, RHS, LHS, OUT, "tflite"),
        ]

    return [
        case("with a residual", graph, x, skip, composite=True),
        case("plain", lambda v, r: graph(v, r)[:2], x, skip, composite=True),
    ]


def litert_cases() -> list[Case]:
    return elementwise_cases() + requantize_cases() + reduction_cases()
