"""Rounding `tflite` chooses LiteRT's arithmetic wherever LiteRT has the operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.qnn.test_litert import operator_of
from tests.support.graphs import Graph, graph, grid, names_of, relax
from tvm_qat.ir import Expr, IRModule, attrs_of, bindings_of, op_name
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qnn import litert
from tvm_qat.qparams import QParams
from tvm_qat.verification.evaluate import evaluate_module

X, Y, OUT = grid(np.float32(0.03), 3), grid(np.float32(0.05), -9), grid(np.float32(0.04), 1)
SHAPE = ((1, 4, 4, 6), "float32")


def _roundings(mod: IRModule) -> list[str]:
    calls = [binding.value for binding in bindings_of(mod["main"]) if op_name(binding.value)]
    return [attrs_of(c)["rounding"] for c in calls if op_name(c) not in ("qnn.quantize", "qnn.dequantize")]


def _one(op: Callable[[Expr], Expr], source: QParams = X, output: QParams = OUT) -> IRModule:
    return graph(lambda b, x: b.quantize(b(op(b.fake(x, source)), "node"), output), x=SHAPE)


OPERATORS: dict[str, tuple[Callable[[Expr], Expr], QParams, QParams]] = {
    "mean": (lambda x: relax.op.mean(x, [1, 2]), X, OUT),
    "pool": (lambda x: relax.op.nn.avg_pool2d(x, (2, 2), layout="NHWC"), X, X),
    "softmax": (lambda x: relax.op.nn.softmax(x, -1), X, grid(1 / 256, -128)),
}


def _two(b: Graph, x: Expr, y: Expr) -> Expr:
    return b.quantize(b(relax.op.subtract(b.fake(x, X), b.fake(y, Y)), "node"), OUT)


@pytest.mark.parametrize("name", ["mean", "pool", "softmax"])
def test_an_operator_that_litert_has_is_computed_as_there(name: str) -> None:
    before = _one(*OPERATORS[name])
    assert _roundings(fold_into_qnn(before, "tflite")) == ["tflite"]
    assert _roundings(fold_into_qnn(before)) == ["half_even"]


def test_a_difference_of_two_tensors_is_computed_as_there() -> None:
    before = graph(_two, x=SHAPE, y=SHAPE)
    assert _roundings(fold_into_qnn(before, "tflite")) == ["tflite"]


@pytest.mark.parametrize(
    ("op", "source", "output"),
    [
        (OPERATORS["pool"][0], X, OUT),
        (OPERATORS["softmax"][0], X, OUT),
        (lambda x: relax.op.nn.softmax(x, 1), X, grid(1 / 256, -128)),
        (lambda x: relax.op.sum(x, [1, 2]), X, OUT),
    ],
    ids=["pool onto another grid", "softmax onto another grid", "softmax of an inner axis", "sum"],
)
def test_what_litert_lacks_keeps_its_arithmetic(op: Callable, source: QParams, output: QParams) -> None:
    assert _roundings(fold_into_qnn(_one(op, source, output), "tflite")) == ["half_even"]


@pytest.mark.parametrize(
    ("op", "name", "output"),
    [
        (relax.op.sigmoid, "LOGISTIC", grid(1 / 256, -128)),
        (relax.op.tanh, "TANH", grid(1 / 128, 0)),
        (relax.op.exp, "EXP", grid(np.float32(0.9), -100)),
    ],
)
@pytest.mark.parametrize("scale", [0.003, 0.02, 0.047, 0.11])
def test_a_function_of_8_bits_is_litert_s_table(
    op: Callable, name: str, output: QParams, scale: float
) -> None:
    source = grid(np.float32(scale), 17)
    q = litert.every(source).astype(np.int8).reshape(1, 256)
    before = graph(
        lambda b, x: b.quantize(b(op(b.dequantize(x, source)), "node"), output), x=(q.shape, "int8")
    )
    after = fold_into_qnn(before, "tflite")
    assert names_of(after) == ["qnn.lut"]
    (have,) = evaluate_module(after, {"x": q})
    np.testing.assert_array_equal(have, operator_of(name, q, source, output))


@pytest.mark.parametrize("slope", [0.01, 0.3, 1.0])
def test_leaky_relu_of_16_bits_is_one_operator(slope: float) -> None:
    source, output = grid(np.float32(0.0013), 0, "int16"), grid(np.float32(0.00091), 0, "int16")
    q = np.arange(-(2**15), 2**15).astype(np.int16).reshape(1, -1)

    def leaky(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.leakyrelu(b.dequantize(x, source), slope), "node"), output)

    after = fold_into_qnn(graph(leaky, x=(q.shape, "int16")), "tflite")
    assert names_of(after) == ["qnn.maximum"]
    (have,) = evaluate_module(after, {"x": q})
    options = schema.LeakyReluOptionsT()
    options.alpha = slope
    np.testing.assert_array_equal(have, operator_of("LEAKY_RELU", q, source, output, options))
