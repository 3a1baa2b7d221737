"""Pooling, means and softmax are computed in integers once the grid of their result is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.graphs import Graph, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import folded, reasons
from tvm_qat.ir import Expr, IRModule
from tvm_qat.qparams import QParams

X = grid(2**-5, 3)
OUT = grid(2**-6, -5)
SHAPE = ((2, 3, 7, 7), "float32")


def _reduced(op: Callable, params: QParams = X, out: QParams = OUT, shape: tuple = SHAPE) -> IRModule:
    return graph(lambda b, x: b.quantize(b(op(b.fake(x, params)), "node"), out), x=shape)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize(
    ("size", "strides", "padding"),
    [((2, 2), (2, 2), (0, 0)), ((3, 3), (2, 2), (1, 1)), ((4, 2), (3, 1), (1, 0))],
)  # fmt: skip
def test_average_pooling_keeps_its_numbers(
    size: tuple, strides: tuple, padding: tuple, count_include_pad: bool, ceil_mode: bool
) -> None:
    before = _reduced(
        lambda x: relax.op.nn.avg_pool2d(
            x, size, strides, padding, ceil_mode=ceil_mode, count_include_pad=count_include_pad
        )
    )
    assert names_of(folded(before, max_steps=1))[-1] == "qnn.avg_pool"


def test_average_pooling_in_one_and_three_dimensions_keeps_its_numbers() -> None:
    one = _reduced(lambda x: relax.op.nn.avg_pool1d(x, 2, 2), shape=((2, 3, 8), "float32"))
    three = _reduced(lambda x: relax.op.nn.avg_pool3d(x, (2, 2, 2)), shape=((1, 2, 4, 4, 4), "float32"))
    assert names_of(folded(one)) == names_of(folded(three)) == ["qnn.quantize", "qnn.avg_pool"]


def test_pooling_to_one_element_is_a_mean() -> None:
    before = _reduced(lambda x: relax.op.nn.adaptive_avg_pool2d(x, (1, 1)))
    assert names_of(folded(before, max_steps=1)) == ["qnn.quantize", "qnn.mean"]


def test_pooling_to_several_elements_stays_float_and_says_why() -> None:
    after = folded(_reduced(lambda x: relax.op.nn.adaptive_avg_pool2d(x, (2, 2))))
    ((node, text),) = reasons(after)
    assert node == "node" and "more than one element" in text


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [[2, 3], [-1], -2, None, [0, 1]])
def test_a_mean_keeps_its_numbers(axis: object, keepdims: bool) -> None:
    after = folded(_reduced(lambda x: relax.op.mean(x, axis, keepdims)), max_steps=1)
    assert names_of(after) == ["qnn.quantize", "qnn.mean"]


def test_a_mean_over_a_length_known_only_at_run_time_stays_float_and_says_why() -> None:
    after = folded(_reduced(lambda x: relax.op.mean(x, 0), shape=(("n", 3), "float32")))
    ((node, text),) = reasons(after)
    assert node == "node" and "known only at run time" in text


def test_a_symbolic_batch_does_not_hinder_a_mean() -> None:
    before = _reduced(lambda x: relax.op.mean(x, [2, 3]), shape=(("n", 3, 4, 4), "float32"))
    assert float_ops(folded(before)) == []


@pytest.mark.parametrize(
    "op", [lambda x: relax.op.mean(x, [2, 3]), lambda x: relax.op.nn.avg_pool2d(x, (2, 2), (2, 2))]
)
def test_sums_of_products_are_averaged_where_their_bound_allows(op: Callable) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), grid(2**-7))))
        return b.quantize(b(op(c)), OUT)

    assert float_ops(folded(graph(before, x=((2, 3, 4, 4), "float32")), max_steps=1)) == []


@pytest.mark.parametrize(
    "op", [lambda x: relax.op.mean(x, [2, 3]), lambda x: relax.op.nn.avg_pool2d(x, (300, 300), (300, 300))]
)
def test_an_average_that_could_overflow_stays_float_and_says_why(op: Callable) -> None:
    wide = grid(2**-9, 0, "int16")
    after = folded(_reduced(op, wide, wide, ((1, 1, 300, 300), "float32")), max_steps=1, share=1)
    ((node, text),) = reasons(after)
    assert node == "node" and "overflow 32 bits" in text


def test_a_mean_of_a_relu_averages_the_clamped_integers() -> None:
    after = folded(_reduced(lambda x: relax.op.mean(relax.op.nn.relu(x), [2, 3])), max_steps=1)
    assert float_ops(after) == []


@pytest.mark.parametrize("axis", [-1, 1])
def test_softmax_keeps_its_numbers_up_to_ties(axis: int) -> None:
    out = grid(1 / 256, -128)
    after = folded(_reduced(lambda x: relax.op.nn.softmax(x, axis), out=out), max_steps=1)
    assert names_of(after) == ["qnn.quantize", "qnn.softmax"]


def test_softmax_of_sixteen_bits_stays_float_and_says_why() -> None:
    after = folded(_reduced(lambda x: relax.op.nn.softmax(x, -1), grid(2**-9, 0, "int16"), OUT))
    ((node, text),) = reasons(after)
    assert node == "node" and "8-bit" in text


@pytest.mark.parametrize(
    "op",
    [
        lambda x: relax.op.mean(x, [1]),
        lambda x: relax.op.nn.avg_pool2d(x, (2, 2)),
        lambda x: relax.op.nn.softmax(x, 1),
        lambda x: relax.op.max(x, 1),
    ],
)
def test_an_input_quantized_per_channel_stays_float_and_says_why(op: Callable) -> None:
    params = grid(np.array([0.25, 0.5, 0.125]), axis=1)
    after = folded(_reduced(op, params), max_steps=1)
    assert len(reasons(after)) == 1


@pytest.mark.parametrize("keepdims", [False, True])
def test_a_sum_is_a_mean_of_greater_values(keepdims: bool) -> None:
    out = grid(2**-2, 5)
    after = folded(_reduced(lambda x: relax.op.sum(x, [-1], keepdims), out=out), max_steps=1)
    assert names_of(after) == ["qnn.quantize", "qnn.mean"]
