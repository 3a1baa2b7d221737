"""Cases of composite functions: an anchor and the elementwise calls that follow it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.kernels.harness import Case, case
from tests.kernels.linear_cases import integers
from tests.kernels.pointwise_cases import S8, U8, every
from tvm_qat.ir import Expr, const, relax
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

Step = Callable[[Expr], Expr]


def _accumulator(rng: np.random.Generator, channels: int, axis: int) -> QParams:
    return QParams(rng.uniform(1e-4, 2e-3, channels), 0, "int32", axis=axis)


def _bias(rng: np.random.Generator, *shape: int) -> Step:
    values = const(rng.integers(-5000, 5000, shape), "int32")
    return lambda v: relax.op.add(v, values)


def _finer(v: Expr) -> Expr:
    """The sum on a grid of steps 2^9 times as small, for a bias that lies between two of its own."""
    return relax.op.left_shift(v, const(9, "int32"))


def _clip(low: int, high: int) -> Step:
    return lambda v: relax.op.clip(v, relax.prim_value(low), relax.prim_value(high))


def _conv(
    rng: np.random.Generator, inner: int, outer: int, size: int = 3, groups: int = 1, **options: Any
) -> Step:
    weight = const(integers(rng, "int8", outer, size, size, inner // groups))
    window = {"strides": [1, 1], "padding": [size // 2] * 4, "dilation": [1, 1], "groups": groups}
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
    return lambda x: qnn.conv(x, weight, 3, options.get("kernel_zero", 0), **window, **layouts)


def _to(source: QParams, target: QParams, rounding: str = "half_even") -> Step:
    return lambda v: qnn.requantize(v, source, target, rounding)


def _residual(other: Expr, output: QParams) -> Step:
    return lambda v: qnn.elementwise("add", v, other, U8, QParams(0.03, 20, "uint8"), output)


def conv_cases() -> list[Case]:
    rng = np.random.default_rng(30)
    x, y = integers(rng, "uint8", 2, 6, 7, 8), integers(rng, "uint8", 2, 6, 7, 40)
    acc, few = _accumulator(rng, 40, 3), _accumulator(rng, 8, 3)
    bias, kernels = _bias(rng, 40), {s: _conv(rng, 8, 40, s) for s in (1, 3)}
    depthwise, square = _conv(rng, 8, 8, 3, groups=8), _conv(rng, 8, 8, 1)
    table = integers(rng, "int8", 256)

    def chain(size: int, *steps: Step) -> Callable[..., list[Any]]:
        return lambda v: [kernels[size](v), bias, *steps]

    def added(anchor: Step, source: QParams, *steps: Step) -> Callable[..., list[Any]]:
        return lambda v, other: [anchor(v), _to(source, U8), _residual(other, S8), *steps]

    found = [
        case("bias, requantize", chain(3, _to(acc, U8)), x),
        case("bias, tflite", chain(3, _to(acc, S8, "tflite")), x),
        case("bias, tflite_single", chain(1, _to(acc, S8, "tflite_single")), x),
        case("bias, single_away", chain(1, _to(acc, S8, "single_away")), x),
        case("clip", chain(1, _to(acc, U8), _clip(3, 90)), x),
        case("requantize, lut", chain(3, _to(acc, U8), lambda v: qnn.lut(v, table)), x),
        case("dequantize", chain(1, lambda v: qnn.dequantize(v, acc)), x),
        case("bias of rank 4", lambda v: [kernels[3](v), _bias(rng, 1, 1, 1, 40), _to(acc, U8)], x),
        case("two biases", chain(3, _bias(rng, 40), _to(acc, U8)), x),
        case("finer grid, bias", lambda v: [kernels[1](v), _finer, bias, _to(acc, U8)], x),
        case("finer grid, bias, tflite_single",
             lambda v: [kernels[3](v), _finer, bias, _to(acc, S8, "tflite_single")], x),
        case("depthwise, finer grid, bias", lambda v: [depthwise(v), _finer, _bias(rng, 8), _to(few, U8)], x),
        case("bias alone", chain(3), x),
        case("maximum", chain(1, _to(acc, S8), lambda v: relax.op.maximum(v, const(-7, "int8"))), x),
        case("residual", added(kernels[3], acc), x, y),
        case("residual 1x1", added(kernels[1], acc, _clip(-7, 90)), x, y),
        case("residual, symbolic", added(kernels[3], acc), x, y, symbolic=((0, 0), (1, 0))),
        case("residual 1x1, symbolic", added(kernels[1], acc), x, y, symbolic=((0, 0), (1, 0))),
        case("residual, repeated", added(kernels[1], acc), x, y[:1, :, :1]),
        case("residual, one value per channel", added(kernels[1], acc), x, y[0, 0, 0]),
        case("depthwise, residual", added(depthwise, few), x, y[..., :8].copy()),
        case(
            "own input added", lambda v: [square(v), _to(few, U8), _residual(v, S8), _to(S8, U8)], x
        ),
    ]  # fmt: skip
    return [Case(c.name, c.graph, c.inputs, c.symbolic, composite=True) for c in found]


def other_cases() -> list[Case]:
    rng = np.random.default_rng(31)
    w, acc = const(integers(rng, "int8", 33, 20)), _accumulator(rng, 33, 1)
    x = integers(rng, "uint8", 5, 20)
    planes = integers(rng, "uint8", 2, 4, 6, 5)
    plane_weights = const(integers(rng, "int8", 9, 4, 3, 3))
    window = {"strides": [1, 1], "padding": [1] * 4, "dilation": [1, 1]}
    pool = {"pool_size": [2, 2], "strides": [2, 2], "padding": [0] * 4, "dilation": [1, 1], "layout": "NHWC"}
    heads = QParams(3e-4, 0, "int32")
    table = integers(rng, "int8", 256)
    image = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    found = [
        case("dense", lambda v: [qnn.dense(v, w, 9), _bias(rng, 33), _to(acc, U8)], x, symbolic=((0, 0),)),
        case(
            "dense, finer grid", lambda v: [qnn.dense(v, w, 9), _finer, _bias(rng, 33), _to(acc, U8)],
            x, symbolic=((0, 0),),
        ),
        case(
            "dense, zero point at run time",
            lambda v, z: [qnn.dense(v, w, z), _bias(rng, 33), lambda a: qnn.dequantize(a, acc)],
            x, np.array(17, np.int32),
        ),
        case(
            "dense, scale at run time",
            lambda v, s: [qnn.dense(v, w, 5), lambda a: qnn.dequantize_at_run_time(a, s, const(0, "int32"))],
            x, np.array(0.013, np.float32),
        ),
        case(
            "batch_matmul", lambda a, b: [qnn.batch_matmul(a, b, 3, 1), _to(heads, U8)],
            integers(rng, "uint8", 2, 3, 5, 9), integers(rng, "int8", 2, 3, 9, 37),
        ),
        case(
            "NCHW", lambda v: [qnn.conv(v, plane_weights, 3, **window), _bias(rng, 9, 1, 1),
                               _to(_accumulator(rng, 9, 1), U8)], planes,
        ),
        case("avg_pool", lambda v: [qnn.avg_pool(v, U8, S8, **pool), _to(S8, U8)], planes),
        case("mean", lambda v: [qnn.mean(v, U8, S8, [1, 2], False), _to(S8, U8)], planes),
        case("softmax", lambda v: [qnn.softmax(v, U8, S8, 1), _clip(-5, 100)], x),
        case(
            "quantize chain",
            lambda v: [qnn.quantize(v, U8), _to(U8, S8), lambda a: qnn.dequantize(a, S8)], image,
        ),
        case("lut chain", lambda v: [qnn.lut(v, table), _to(S8, U8), _clip(9, 99)], every("uint8")),
    ]  # fmt: skip
    return [Case(c.name, c.graph, c.inputs, c.symbolic, composite=True) for c in found]
