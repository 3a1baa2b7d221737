"""Convolutions and matrix products of quantized tensors become integer operators."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import (
    Graph,
    call_named,
    float_ops,
    graph,
    grid,
    names_of,
    relax,
    sources_of,
)
from tests.support.rewrite import check_rewrite, folded, reasons
from tvm_qat.ir import Expr, const
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qnn import build as qnn

X = grid(2**-5, 3)
W = grid(2**-7)
Y = grid(2**-4, -5)
CHANNELS = 2.0 ** np.array([-7, -8, -6, -7])


def test_a_quantized_convolution_becomes_an_integer_one() -> None:
    kernel = np.random.default_rng(0).integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)

    def before(b: Graph, x: Expr) -> Expr:
        w = b.dequantize(const(kernel), grid(CHANNELS, np.zeros(4, int), axis=0))
        c = b(relax.op.nn.conv2d(b.fake(x, X), w, padding=1))
        return b.quantize(b(relax.op.add(c, const(np.ones((1, 4, 1, 1), np.float32)))), Y)

    def expected(b: Graph, x: Expr) -> Expr:
        acc = grid(X.scale * CHANNELS, 0, "int32", 1)
        window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
        q = b(qnn.conv(b.quantize(x, X), const(kernel), 3, np.zeros(4, int), **window))
        bias = (1 / (X.scale * CHANNELS)).astype(np.int32).reshape(1, 4, 1, 1)
        return b(qnn.requantize(b(relax.op.add(q, const(bias))), acc, Y))

    shape = {"x": (("n", 3, 5, 5), "float32")}
    check_rewrite(fold_into_qnn, graph(before, **shape), graph(expected, **shape))


@pytest.mark.parametrize(
    ("shape", "kernel", "window"),
    [
        ((2, 3, 6, 6), (4, 3, 3, 3), {"padding": 1}),
        ((1, 4, 6, 6), (4, 2, 3, 3), {"groups": 2}),
        ((1, 4, 6, 6), (4, 1, 3, 3), {"groups": 4, "strides": 2, "padding": (1, 0, 1, 0)}),
        ((1, 2, 9, 9), (4, 2, 3, 3), {"dilation": 2, "padding": 2}),
    ],
)  # fmt: skip
def test_every_form_of_conv2d_keeps_its_numbers(shape: tuple, kernel: tuple, window: dict) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight(kernel, grid(CHANNELS, np.zeros(4, int), axis=0))
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), w, **window)), Y)

    after = folded(graph(before, x=(shape, "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


def test_conv1d_and_conv3d_keep_their_numbers() -> None:
    def one(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv1d(b.fake(x, X), b.weight((4, 3, 3), W), padding=1)), Y)

    def three(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv3d(b.fake(x, X), b.weight((4, 2, 3, 3, 3), W), strides=2)), Y)

    assert names_of(folded(graph(one, x=(("n", 3, 7), "float32"))))[1] == "qnn.conv1d"
    assert names_of(folded(graph(three, x=((1, 2, 5, 5, 5), "float32"))))[1] == "qnn.conv3d"


@pytest.mark.parametrize(
    ("channels", "kernel", "window"),
    [
        (3, (3, 4, 3, 3), {"strides": 2, "padding": 1, "output_padding": 1}),
        (4, (4, 2, 3, 3), {"groups": 2}),
        (3, (3, 4, 2, 2), {"strides": 2}),
    ],
)  # fmt: skip
def test_transposed_convolution_keeps_its_numbers(channels: int, kernel: tuple, window: dict) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = relax.op.nn.conv2d_transpose(b.fake(x, X), b.weight(kernel, W), **window)
        return b.quantize(b(c), Y)

    after = folded(graph(before, x=((2, channels, 4, 4), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d_transpose", "qnn.requantize"]


def test_transposed_convolution_with_a_scale_per_channel_keeps_its_numbers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((3, 4, 3, 3), grid(CHANNELS, axis=1))
        return b.quantize(b(relax.op.nn.conv2d_transpose(b.fake(x, X), w)), Y)

    assert float_ops(folded(graph(before, x=((1, 3, 4, 4), "float32")))) == []


def test_grouped_transposed_convolution_with_a_scale_per_channel_stays_float_and_says_why() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((4, 2, 3, 3), grid([0.5, 0.25], axis=1))
        return b.quantize(b(relax.op.nn.conv2d_transpose(b.fake(x, X), w, groups=2), "up"), Y)

    after = folded(graph(before, x=((1, 4, 4, 4), "float32")))
    ((node, text),) = reasons(after)
    assert node == "up" and "several groups" in text


def test_uint8_weights_with_zero_points_per_channel_keep_their_numbers() -> None:
    params = grid(CHANNELS, [100, 128, 131, 0], "uint8", axis=0)

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 3, 3), params))), Y)

    assert float_ops(folded(graph(before, x=((1, 3, 5, 5), "float32")))) == []


def test_weights_of_four_bits_are_used_as_they_are_stored() -> None:
    params = grid(CHANNELS * 16, 0, axis=0)
    kernel = np.random.default_rng(0).integers(-8, 8, (4, 3, 1, 1)).astype(np.int8)

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), b.dequantize(const(kernel), params))), Y)

    assert float_ops(folded(graph(before, x=((1, 3, 5, 5), "float32")))) == []


def test_a_float_weight_that_is_fake_quantized_is_quantized_at_compile_time() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)

    def before(b: Graph, x: Expr) -> Expr:
        w = b.fake(const(kernel), grid(2**-5))
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), w)), Y)

    after = folded(graph(before, x=((1, 3, 5, 5), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


def test_int16_activations_keep_their_numbers() -> None:
    params = grid(2**-9, 0, "int16")

    def before(b: Graph, x: Expr) -> Expr:
        c = relax.op.nn.conv2d(b.fake(x, params), b.weight((4, 3, 3, 3), grid(2**-7), low=-7))
        return b.quantize(b(c), grid(2**-6, 0, "int16"))

    assert float_ops(folded(graph(before, x=((1, 3, 5, 5), "float32")))) == []


def test_a_sum_that_could_overflow_stays_float_and_says_why() -> None:
    params = grid(2**-9, 0, "int16")

    def before(b: Graph, x: Expr) -> Expr:
        c = relax.op.nn.conv2d(b.fake(x, params), b.weight((2, 200, 3, 3), grid(2**-7)))
        return b.quantize(b(c, "wide"), grid(2**-2, 0, "int16"))

    after = fold_into_qnn(graph(before, x=((1, 200, 3, 3), "float32")))
    ((node, text),) = reasons(after)
    assert node == "wide" and "overflow 32 bits" in text


@pytest.mark.parametrize("shape", [(2, 5), (2, 3, 5), ("n", 5)])
def test_a_matrix_product_with_a_constant_becomes_dense(shape: tuple) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((5, 4), grid(CHANNELS, axis=1))
        return b.quantize(b(relax.op.matmul(b.fake(x, X), w)), Y)

    after = folded(graph(before, x=(shape, "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.dense", "qnn.requantize"]


def test_a_weight_transposed_in_the_graph_becomes_dense() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b(relax.op.permute_dims(b.weight((4, 5), grid(CHANNELS, axis=0))))
        return b.quantize(b(relax.op.matmul(b.fake(x, X), w)), Y)

    after = folded(graph(before, x=((2, 5), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.dense", "qnn.requantize"]


def test_a_scale_along_the_summed_axis_stays_float_and_names_the_axis() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((5, 4), grid(2.0 ** -np.arange(5, 10), axis=0))
        return b.quantize(b(relax.op.matmul(b.fake(x, X), w), "fc"), Y)

    after = folded(graph(before, x=((2, 5), "float32")))
    ((node, text),) = reasons(after)
    assert node == "fc" and "axis 0" in text and "sum runs over" in text
    assert names_of(after) == ["qnn.quantize", "qnn.dequantize", "matmul", "qnn.quantize"]


def test_a_negative_axis_means_the_same_channels() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((5, 4), grid(CHANNELS, axis=-1))
        return b.quantize(b(relax.op.matmul(b.fake(x, X), w)), Y)

    assert float_ops(folded(graph(before, x=((2, 5), "float32")))) == []


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 5), (2, 5, 4)), ((2, 3, 5), (5, 4)), ((3, 5), (2, 5, 4)), ((2, 2, 3, 5), (2, 1, 5, 3))],
)
def test_two_activations_become_a_batch_matmul(left: tuple, right: tuple) -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        product = relax.op.matmul(b.fake(x, X), b.fake(y, grid(2**-5, -7)))
        return b.quantize(b(product), Y)

    after = folded(graph(before, x=(left, "float32"), y=(right, "float32")))
    assert names_of(after).count("qnn.batch_matmul") == 1 and float_ops(after) == []


def test_a_product_with_itself_keeps_its_numbers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        return b.quantize(b(relax.op.matmul(d, b(relax.op.permute_dims(d, [0, 2, 1])))), Y)

    assert float_ops(folded(graph(before, x=((2, 3, 5), "float32")))) == []


def test_a_matrix_vector_product_stays_float_and_says_why() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.matmul(b.fake(x, X), b.weight((5,), W)), "mv"), Y)

    ((node, text),) = reasons(folded(graph(before, x=((2, 5), "float32"))))
    assert node == "mv" and "vector" in text


def test_a_weight_that_is_not_quantized_stays_float_and_says_so() -> None:
    weight = const(np.full((4, 3, 1, 1), 0.5, np.float32))

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), weight), "c"), Y)

    assert reasons(folded(graph(before, x=((1, 3, 4, 4), "float32")))) == [
        ("c", "conv2d: its weight is not quantized")
    ]


def test_a_weight_of_whole_numbers_needs_no_quantization() -> None:
    weight = const(np.arange(-6, 6).astype(np.float32).reshape(4, 3, 1, 1))

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), weight), "c"), Y)

    mod = graph(before, x=((1, 3, 4, 4), "float32"))
    assert float_ops(folded(mod)) == []


def test_an_input_quantized_per_channel_stays_float_and_says_so() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, grid([0.25, 0.5, 0.125], axis=1))
        return b.quantize(b(relax.op.nn.conv2d(d, b.weight((4, 3, 1, 1), W)), "c"), Y)

    assert reasons(folded(graph(before, x=((1, 3, 4, 4), "float32")))) == [
        ("c", "conv2d: its input is quantized per channel")
    ]


def test_a_clipped_weight_is_clipped_at_compile_time() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b(relax.op.clip(b.weight((4, 3, 3, 3), W), -0.5, 0.5))
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), w)), Y)

    after = folded(graph(before, x=((1, 3, 5, 5), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


def test_the_node_names_stay_on_what_they_became() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X, "input"), b.weight((4, 3, 1, 1), W)), "conv1")
        return b.quantize(c, Y, "output")

    found = sources_of(fold_into_qnn(graph(before, x=((1, 3, 4, 4), "float32"))))
    assert found == {"qnn.quantize": "input", "qnn.conv2d": "conv1", "qnn.requantize": "conv1"}


def test_the_rounding_of_requantizes_is_the_callers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), W))), Y)

    after = fold_into_qnn(graph(before, x=((1, 3, 4, 4), "float32")), "tflite")
    assert call_named(after, "qnn.requantize")["rounding"] == "tflite"


@pytest.mark.parametrize("written_out", [True, False])
def test_scales_of_each_row_that_are_computed_at_run_time_are_named(written_out: bool) -> None:
    def body(b: Graph, x: Expr) -> Expr:
        most = b(relax.op.max(b(relax.op.abs(x)), [1], keepdims=True))
        scale = b(relax.op.divide(most, const(np.float32(127))), "scales")
        if written_out:
            levels = b(relax.op.clip(b(relax.op.round(b(relax.op.divide(x, scale)))), -128, 127))
            real = b(relax.op.multiply(levels, scale))
        else:
            row = b(relax.op.reshape(scale, [2]))
            zero = const(np.zeros(2, np.int32))
            q = b(qnn.quantize_at_run_time(x, row, zero, "int8", -128, 127, 0))
            real = b(qnn.dequantize_at_run_time(q, row, zero, 0))
        return b(relax.op.matmul(real, b.weight((8, 4), W)), "product")

    mod = folded(graph(body, x=((2, 8), "float32")))
    text = "matmul: the scale of its input is computed at run time by `scales`, one for each row"
    assert ("product", text) in reasons(mod)


def test_a_product_with_a_factor_that_is_no_scale_is_only_not_quantized() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        real = b(relax.op.multiply(b(relax.op.clip(x, -1, 1)), b(relax.op.max(x, [1], keepdims=True))))
        return b(relax.op.matmul(real, b.weight((8, 4), W)), "product")

    mod = folded(graph(body, x=((2, 8), "float32")))
    assert ("product", "matmul: its input is not quantized") in reasons(mod)
