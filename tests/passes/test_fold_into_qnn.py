"""The walk itself: islands, sharing, borders, dtypes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import check_unchanged, folded, reasons
from tvm_qat.ir import Expr, Tuple, const, dtype_of, op_name
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

X = grid(2**-5, 3)
W = grid(2**-7)
OUT = grid(2**-4, -5)
SHAPE = ((2, 3, 4, 4), "float32")


def _conv(b: Graph, d: Expr, seed: int = 0, name: str | None = None) -> Expr:
    return b(relax.op.nn.conv2d(d, b.weight((3, 3, 1, 1), W, seed)), name)


def test_an_operator_without_a_rule_costs_one_island_and_never_a_region() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        first = b.fake(_conv(b, b.fake(x, X)), OUT)
        odd = b.fake(b(relax.op.cumsum(first, 1), "odd"), OUT)
        return b.quantize(_conv(b, odd, 1), OUT)

    after = folded(graph(before, x=SHAPE))
    assert names_of(after) == [
        "qnn.quantize", "qnn.conv2d", "qnn.requantize", "qnn.dequantize", "cumsum", "qnn.quantize",
        "qnn.conv2d", "qnn.requantize",
    ]  # fmt: skip
    assert reasons(after) == [("odd", "cumsum: it has no integer rule")]


def test_a_graph_without_quantization_is_left_alone() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(x, const(np.ones((3, 3, 1, 1), np.float32))))
        return b(relax.op.nn.softmax(b(relax.op.add(b(relax.op.nn.relu(c)), c)), 1))

    check_unchanged(fold_into_qnn, graph(body, x=SHAPE))


def test_a_quantized_input_and_a_dequantized_output_are_the_border() -> None:
    check_unchanged(fold_into_qnn, graph(lambda b, x: b.quantize(x, X), x=SHAPE))
    check_unchanged(fold_into_qnn, graph(lambda b, x: b.dequantize(x, X), x=(SHAPE[0], "int8")))


def test_integer_inputs_may_cross_the_border() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(_conv(b, b.dequantize(x, X)), OUT)

    after = folded(graph(before, x=(SHAPE[0], "int8")))
    assert names_of(after) == ["qnn.conv2d", "qnn.requantize"]


def test_a_dequantized_tensor_with_several_consumers_is_carried_to_each() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        d = b.fake(x, X)
        return (
            b.quantize(_conv(b, d), OUT),
            b.quantize(b(relax.op.sigmoid(d)), OUT),
            b.quantize(b(relax.op.add(d, d)), OUT),
            b(relax.op.cumsum(d, 1)),
        )

    after = folded(graph(before, x=SHAPE))
    assert names_of(after).count("qnn.quantize") == 1
    assert names_of(after).count("qnn.dequantize") == 1


def test_a_tensor_quantized_twice_on_different_grids_is_computed_once_per_grid() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        c = _conv(b, b.fake(x, X))
        return b.quantize(c, OUT), b.quantize(b(relax.op.nn.relu(c)), grid(2**-3, 0, "uint8"))

    after = folded(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize", "qnn.requantize"]


def test_a_sum_quantized_on_two_grids_is_formed_for_each() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> tuple:
        s = b(relax.op.add(b.fake(x, X), b.fake(y, OUT)))
        return b.quantize(s, OUT), b.quantize(b(relax.op.nn.relu(s)), grid(2**-3, 0, "uint8"))

    assert float_ops(folded(graph(before, x=SHAPE, y=SHAPE))) == []


def test_an_output_may_be_float_and_quantized() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        c = _conv(b, b.fake(x, X), name="c")
        s = b(relax.op.add(c, c), "s")
        return c, b.quantize(c, OUT), s, b.quantize(s, OUT)

    after = folded(graph(before, x=SHAPE))
    assert float_ops(after) == ["add"]
    assert reasons(after) == [("s", "add: its result is not quantized: it is the model's output")]


def test_the_last_operator_names_the_output_as_its_user() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.nn.softmax(b.fake(x, X), 1), "tail")

    after = folded(graph(before, x=SHAPE))
    assert reasons(after) == [("tail", "softmax: its result is not quantized: it is the model's output")]


def test_an_operator_whose_user_is_float_names_the_user() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        s = b(relax.op.sigmoid(b.fake(x, X)), "gate")
        return b(relax.op.cumsum(s, 1), "odd")

    after = folded(graph(before, x=SHAPE))
    assert reasons(after) == [
        ("odd", "cumsum: it has no integer rule"),
        ("gate", "sigmoid: its result is used in float by `odd`"),
    ]


def test_one_reason_is_given_once() -> None:
    """The outer sum cannot be formed of an unquantized one; the quantize is no cause."""

    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        d, e = b.fake(x, X), b.fake(y, OUT)
        inner = b(relax.op.multiply(d, e), "inner")
        return b.quantize(b(relax.op.add(inner, e), "outer"), OUT)

    after = folded(graph(before, x=SHAPE, y=SHAPE))
    assert reasons(after) == [
        ("outer", "add: one of its inputs is not quantized"),
        ("inner", "multiply: its result is used in float by `outer`"),
    ]


def test_the_cause_behind_a_movement_is_named() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        s = b(relax.op.nn.softmax(b.fake(x, grid(2**-9, 0, "int16")), 1), "soft")
        return b.quantize(b(relax.op.reshape(s, (2, 48)), "flat"), OUT)

    after = folded(graph(before, x=SHAPE))
    assert reasons(after) == [
        ("flat", "reshape: its input stays in float"),
        ("soft", "softmax: softmax in integers needs an 8-bit input, quantized per tensor"),
    ]


def test_the_batch_may_be_symbolic() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        c = b.fake(_conv(b, d), OUT)
        s = b.fake(b(relax.op.nn.relu(b(relax.op.add(c, d)))), X)
        t = b.fake(b(relax.op.sigmoid(s)), X)
        cat = b.fake(b(relax.op.concat(Tuple([s, t]), 1)), OUT)
        p = b.fake(b(relax.op.nn.avg_pool2d(cat, (2, 2), (2, 2))), OUT)
        return b.quantize(b(relax.op.matmul(p, p)), OUT)

    assert float_ops(folded(graph(before, x=(("n", 3, 4, 4), "float32")), max_steps=1)) == []


@pytest.mark.parametrize("tail", ["relu", "sum", "none"])
def test_a_float16_model_stays_float16_where_it_is_float(tail: str) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X, dtype="float16")
        w = b.dequantize(const(np.ones((3, 3, 1, 1), np.int8)), W, dtype="float16")
        c = b(relax.op.nn.conv2d(d, w))
        c = b(relax.op.add(c, const(np.ones((1, 3, 1, 1), np.float16))))
        if tail == "sum":
            c = b(relax.op.add(c, d))
        return c if tail == "none" else b(relax.op.nn.relu(c))

    after = folded(graph(before, x=(SHAPE[0], "float16")), max_steps=1, step=2**-7)
    assert {dtype_of(c) for c in calls_of(after)} <= {"float16", "int8", "int32"}


def test_a_float16_model_folds() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X, dtype="float16")
        w = b.dequantize(const(np.ones((3, 3, 1, 1), np.int8)), W, dtype="float16")
        return b.quantize(b(relax.op.nn.relu(b(relax.op.nn.conv2d(d, w)))), OUT)

    assert float_ops(folded(graph(before, x=(SHAPE[0], "float16")))) == []


def test_parameters_computed_at_run_time_are_left_alone() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        scale = b(relax.op.divide(b(relax.op.max(b(relax.op.abs(x)))), const(np.float32(127))))
        zero = const(np.int32(0))
        q = b(qnn.quantize_at_run_time(x, scale, zero, "int8", -128, 127))
        d = b(qnn.dequantize_at_run_time(q, scale, zero))
        return b.quantize(_conv(b, d, name="c"), OUT)

    after = folded(graph(before, x=SHAPE))
    assert [op_name(c) for c in calls_of(after)].count("qnn.dequantize") == 1
    assert reasons(after)[-1] == ("c", "conv2d: the scale of its input is computed at run time")


def test_a_constant_that_is_quantized_becomes_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        offset = b.fake(const(np.float32([0.26, -9, 0.5]).reshape(1, 3, 1, 1)), OUT)
        return b.quantize(b(relax.op.add(b.fake(x, X), offset)), OUT)

    assert names_of(folded(graph(before, x=SHAPE))) == ["qnn.quantize", "qnn.add"]


def test_requantizing_from_channels_of_one_axis_to_those_of_another_stays_float() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, grid([0.25, 0.5, 0.125], axis=1))
        return b.quantize(d, grid([0.5, 0.25, 0.5, 1], axis=2), "again")

    assert reasons(folded(graph(before, x=SHAPE))) == [
        ("again", "quantize: its input and its result are quantized along different axes")
    ]


@pytest.mark.parametrize(
    "target", [grid([0.5, 0.25, 0.5], axis=1), grid([0.5, 0.25, 0.5], [1, 2, 3], axis=1)]
)
def test_a_result_quantized_per_channel_keeps_its_numbers(target: QParams) -> None:
    def before(b: Graph, x: Expr) -> tuple:
        d = b.fake(x, X)
        c = _conv(b, d)
        return b.quantize(c, target), b.quantize(b(relax.op.add(d, d)), target), b.quantize(d, target)

    folded(graph(before, x=SHAPE))
