"""Operators on values one by one: sums, products, clamps, tables."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.support.graphs import Graph, call_named, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import check_rewrite, folded, reasons
from tvm_qat.ir import Expr, IRModule, const
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

X = grid(2**-5, 3)
Y = grid(2**-6, 131, "uint8")
OUT = grid(2**-4, -5)
SHAPE = ((2, 3, 4, 4), "float32")


def _binary(
    op: Callable, left: QParams = X, right: QParams = Y, out: QParams = OUT, shapes: tuple = (SHAPE, SHAPE)
) -> IRModule:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(op(b.fake(x, left), b.fake(y, right)), "node"), out)

    return graph(before, x=shapes[0], y=shapes[1])


def _unary(op: Callable, params: QParams = X, out: QParams = OUT, shape: tuple = SHAPE) -> IRModule:
    """`op` takes (graph, dequantized x)."""
    return graph(lambda b, x: b.quantize(b(op(b, b.fake(x, params)), "node"), out), x=shape)


def test_a_residual_addition_of_two_grids_becomes_one_operator() -> None:
    def expected(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.elementwise("add", b.quantize(x, X), b.quantize(y, Y), X, Y, OUT))

    check_rewrite(fold_into_qnn, _binary(relax.op.add), graph(expected, x=SHAPE, y=SHAPE))


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "minimum", "maximum"])
def test_two_quantized_tensors_keep_their_numbers(name: str) -> None:
    after = folded(_binary(getattr(relax.op, name)))
    assert names_of(after)[-1] == f"qnn.{name}"


@pytest.mark.parametrize("name", ["add", "subtract"])
@pytest.mark.parametrize("rounding", ["floor", "ceil", "toward_zero"])
def test_a_sum_is_rounded_as_its_producer_rounds(name: str, rounding: str) -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        both = b(getattr(relax.op, name)(b.fake(x, X), b.fake(y, Y)), "node")
        return b(qnn.quantize(both, OUT, rounding))

    assert names_of(folded(graph(before, x=SHAPE, y=SHAPE)))[-1] == f"qnn.{name}"


def test_a_quotient_keeps_its_numbers_up_to_ties() -> None:
    shifted = grid(2**-6, 0, "uint8")  # no zero would be fair to divide by; infinities saturate
    before = graph(
        lambda b, x, y: b.quantize(
            b(relax.op.divide(b.fake(x, X), b.dequantize(b(relax.op.clip(y, 1, 255)), shifted))), OUT
        ),
        x=SHAPE,
        y=((2, 3, 4, 4), "uint8"),
    )
    assert names_of(folded(before, max_steps=1))[-1] == "qnn.divide"


@pytest.mark.parametrize("right", [(1, 3, 1, 1), (4,), (), (2, 1, 4, 1), (1, 2, 3, 4, 4)])
def test_broadcasting_is_kept(right: tuple) -> None:
    folded(_binary(relax.op.add, shapes=(SHAPE, (right, "float32"))))
    folded(_binary(relax.op.subtract, shapes=((right, "float32"), SHAPE)))


def test_the_same_tensor_on_both_sides_keeps_its_numbers() -> None:
    assert float_ops(folded(_unary(lambda b, x: relax.op.add(x, x), OUT, X))) == []
    assert float_ops(folded(_unary(lambda b, x: relax.op.multiply(x, x)))) == []


def test_sums_of_products_are_added_without_a_grid_between() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        left = b(relax.op.nn.conv2d(d, b.weight((3, 3, 1, 1), grid([2**-7, 2**-8, 2**-7], axis=0))))
        right = b(relax.op.nn.conv2d(d, b.weight((3, 3, 1, 1), grid(2**-8), seed=1)))
        return b.quantize(b(relax.op.add(left, right)), OUT)

    assert names_of(folded(graph(before, x=SHAPE)))[-1] == "qnn.add"


def test_sixteen_bit_tensors_keep_their_numbers() -> None:
    wide = grid(2**-10, 0, "int16")
    for name in ("add", "multiply", "maximum"):
        assert float_ops(folded(_binary(getattr(relax.op, name), wide, X, wide))) == []


# ---------------------------------------------------------------- float constants

SCALAR = np.float32(-0.375)
VECTOR = np.array([1.5, -0.25, 3], np.float32).reshape(1, 3, 1, 1)


@pytest.mark.parametrize("value", [SCALAR, VECTOR, np.array([[[[5.0]]]], np.float32)])
@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "minimum", "maximum"])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_float_constant_keeps_its_own_value(name: str, value: np.ndarray, swapped: bool) -> None:
    op = getattr(relax.op, name)
    exact = name != "divide"
    positive = grid(2**-5, -128) if name == "divide" else X

    def node(b: Graph, x: Expr) -> Expr:
        return op(const(value), x) if swapped else op(x, const(value))

    after = folded(_unary(node, positive), max_steps=0 if exact else 1)
    assert float_ops(after) == []


def test_a_constant_that_raises_the_rank_keeps_the_shape() -> None:
    wide = np.full((1, 1, 1, 1, 1), 2, np.float32)
    for name in ("add", "multiply", "maximum", "minimum"):
        folded(_unary(lambda b, x, n=name: getattr(relax.op, n)(x, const(wide))))


def test_small_constants_beside_a_large_one_keep_their_value() -> None:
    values = np.array([2.0**-9, 1, 2.0**12], np.float32).reshape(1, 3, 1, 1)

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.add(b.fake(x, grid(2**-9)), const(values))), grid(2**-9, 0, "int16"))

    folded(graph(before, x=SHAPE))


def test_a_constant_of_infinity_stays_float_and_says_why() -> None:
    mask = np.array([0, -np.inf, 0, 0], np.float32)
    after = folded(_unary(lambda b, x: relax.op.add(x, const(mask))))
    assert reasons(after) == [("node", "add: a constant operand is not finite")]


def test_division_by_a_constant_zero_stays_float_and_says_why() -> None:
    zeros = np.array([1, 0, 2, 4], np.float32)
    after = fold_into_qnn(_unary(lambda b, x: relax.op.divide(x, const(zeros))))
    assert reasons(after) == [("node", "divide: it divides by a constant zero")]


def test_one_side_that_is_not_quantized_makes_an_island_with_a_reason() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        s = b(relax.op.add(b.fake(x, X), y), "half")
        c = b(relax.op.nn.conv2d(b.fake(s, OUT), b.weight((4, 3, 1, 1), grid(2**-7))))
        return b.quantize(c, OUT)

    after = folded(graph(before, x=SHAPE, y=SHAPE))
    assert reasons(after) == [("half", "add: one of its inputs is not quantized")]
    assert names_of(after) == [
        "qnn.quantize", "qnn.dequantize", "add", "qnn.quantize", "qnn.conv2d", "qnn.requantize",
    ]  # fmt: skip


def test_positive_constants_per_channel_change_the_scale_of_any_tensor() -> None:
    """What a batch norm leaves that follows no convolution: y = x * a + b."""
    factor = np.array([0.5, 2, 4], np.float32).reshape(1, 3, 1, 1)
    offset = np.array([1, -2, 0.5], np.float32).reshape(1, 3, 1, 1)

    def affine(b: Graph, x: Expr) -> Expr:
        return relax.op.add(b(relax.op.multiply(x, const(factor))), const(offset))

    assert names_of(folded(_unary(affine))) == ["qnn.quantize", "qnn.add"]


# ---------------------------------------------------------------- clamps


def _clamped(op: Callable, out: QParams) -> IRModule:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), grid(2**-7))), "c")
        return b.quantize(b(op(c), "clamp"), out)

    return graph(before, x=SHAPE)


@pytest.mark.parametrize("out", [grid(2**-3, 3), grid(2**-3, 0, "uint8"), grid(2**-3, -128), grid(2**-3)])
@pytest.mark.parametrize(
    "op",
    [
        relax.op.nn.relu,
        lambda x: relax.op.clip(x, 0, 6),
        lambda x: relax.op.clip(x, -1.3, 2.7),
        lambda x: relax.op.clip(x, -1e9, 1e9),
        lambda x: relax.op.maximum(x, const(np.float32(0.3))),
        lambda x: relax.op.minimum(const(np.float32(0.3)), x),
    ],
)  # fmt: skip
def test_a_clamp_before_a_quantize_becomes_its_range(op: Callable, out: QParams) -> None:
    after = folded(_clamped(op, out))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


def test_relu_cuts_the_range_at_the_zero_point() -> None:
    attrs = call_named(folded(_clamped(relax.op.nn.relu, grid(2**-3, 3))), "qnn.requantize")
    assert (attrs["qmin"], attrs["qmax"]) == (3, 127)


def test_two_clamps_in_a_row_are_one() -> None:
    for first, second in (((0, 6), (-1, 3)), ((-2, 2), (0, 9)), ((0, 6), (-9, -1)), ((0, 2), (3, 4))):

        def before(b: Graph, x: Expr, first: tuple = first, second: tuple = second) -> Expr:
            c = b(relax.op.clip(b.fake(x, X), *first))
            return b.quantize(b(relax.op.clip(c, *second)), grid(2**-3, 3))

        folded(graph(before, x=SHAPE))


def test_a_clamp_on_the_grid_of_its_input_runs_on_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b(relax.op.clip(b.fake(x, X), -1, 1), "clamp")
        return b.quantize(b(relax.op.nn.conv2d(d, b.weight((4, 3, 1, 1), grid(2**-7)))), OUT)

    after = folded(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.quantize", "clip", "qnn.conv2d", "qnn.requantize"]


def test_a_clamp_beyond_the_grid_of_its_input_is_nothing() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b(relax.op.clip(b.fake(x, grid(2**-6, -128)), 0, 6))
        return b.quantize(b(relax.op.nn.conv2d(d, b.weight((4, 3, 1, 1), grid(2**-7)))), OUT)

    after = folded(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


def test_a_clamp_off_the_grid_of_its_input_stays_float_and_says_why() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b(relax.op.clip(b.fake(x, X), -1.01, 1.01), "clamp")
        return b.quantize(b(relax.op.nn.conv2d(d, b.weight((4, 3, 1, 1), grid(2**-7))), "c"), OUT)

    after = folded(graph(before, x=SHAPE))
    assert dict(reasons(after))["c"] == (
        "conv2d: its input cannot be used: the clip bound -1.01 does not lie on the grid of its input"
    )


def test_a_relu_before_a_quantize_per_channel_becomes_its_range() -> None:
    after = folded(_clamped(relax.op.nn.relu, grid([0.125, 0.25, 0.5, 1], axis=1)))
    assert float_ops(after) == []


def test_a_clip_before_a_quantize_per_channel_stays_float_and_says_why() -> None:
    after = folded(_clamped(lambda x: relax.op.clip(x, 0, 6), grid([0.125, 0.25, 0.5, 1], axis=1)))
    assert reasons(after) == [("clamp", "clip: its clip has no exact bound on the grid of its result")]


def test_a_relu_before_zero_points_per_channel_stays_float_and_says_why() -> None:
    """Each channel would need a bound of its own."""
    after = folded(_clamped(relax.op.nn.relu, grid([0.125, 0.25, 0.5, 1], [-3, 0, 5, 9], axis=1)))
    assert reasons(after) == [("clamp", "relu: its clip has no exact bound on the grid of its result")]


def test_a_relu_of_a_residual_sum_becomes_its_range() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.relu(b(relax.op.add(b.fake(x, X), b.fake(y, Y))))), OUT)

    assert names_of(folded(graph(before, x=SHAPE, y=SHAPE)))[-1] == "qnn.add"


def test_a_relu_between_an_operand_and_its_sum_is_applied_to_the_integers() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        left = b(relax.op.nn.relu(b.fake(x, X)))
        return b.quantize(b(relax.op.add(left, b.fake(y, Y))), OUT)

    assert float_ops(folded(graph(before, x=SHAPE, y=SHAPE))) == []


def test_the_output_keeps_a_relu_that_nothing_quantizes_and_says_so() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.nn.relu(b.fake(x, X)), "tail")

    after = folded(graph(before, x=SHAPE))
    assert reasons(after) == [("tail", "relu: its result is not quantized: it is the model's output")]


# ---------------------------------------------------------------- tables


def _prelu(b: Graph, x: Expr) -> Expr:
    return relax.op.nn.prelu(x, const(np.array([0.25], np.float32)), 1)


def _hardswish(b: Graph, x: Expr) -> Expr:
    gate = b(relax.op.clip(b(relax.op.add(x, const(np.float32(3)))), 0, 6))
    return relax.op.divide(b(relax.op.multiply(x, gate)), const(np.float32(6)))


def _gelu(b: Graph, x: Expr) -> Expr:
    e = b(relax.op.erf(b(relax.op.divide(x, const(np.float32(math.sqrt(2)))))))
    half = b(relax.op.multiply(x, const(np.float32(0.5))))
    return relax.op.multiply(half, b(relax.op.add(e, const(np.float32(1)))))


TABLES = {
    "sigmoid": lambda b, x: relax.op.sigmoid(x),
    "tanh": lambda b, x: relax.op.tanh(x),
    "exp": lambda b, x: relax.op.exp(x),
    "abs": lambda b, x: relax.op.abs(x),
    "erf": lambda b, x: relax.op.erf(x),
    "silu": lambda b, x: relax.op.nn.silu(x),
    "silu, written out": lambda b, x: relax.op.multiply(x, b(relax.op.sigmoid(x))),
    "gelu": lambda b, x: relax.op.nn.gelu(x),
    "gelu, written out": _gelu,
    "hardswish, written out": _hardswish,
    "leaky relu": lambda b, x: relax.op.nn.leakyrelu(x, 0.25),
    "softplus": lambda b, x: relax.op.nn.softplus(x),
    "prelu": _prelu,
    "power": lambda b, x: relax.op.power(x, const(np.float32(2))),
    "square": lambda b, x: relax.op.square(x),
    "relu, then sigmoid": lambda b, x: relax.op.sigmoid(b(relax.op.nn.relu(x))),
    "two in a row": lambda b, x: relax.op.tanh(b(relax.op.negative(x))),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("params", [X, pytest.param(grid(0.037, 100, "uint8"), marks=pytest.mark.slow)])
def test_a_function_of_one_8_bit_tensor_becomes_one_table(name: str, params: QParams) -> None:
    out = grid(0.0173, -3)
    shape = ((1, 1, 64, 64), "float32")
    after = folded(_unary(TABLES[name], params, out, shape), max_steps=1, share=0.02)
    assert names_of(after) == ["qnn.quantize", "qnn.lut"]


def test_a_function_of_sixteen_bits_stays_float_and_says_why() -> None:
    after = folded(_unary(TABLES["sigmoid"], grid(2**-10, 0, "int16")))
    ((node, text),) = reasons(after)
    assert node == "node" and "8-bit" in text


def test_a_function_of_two_tensors_is_no_table() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.multiply(b.fake(x, X), b(relax.op.sigmoid(b.fake(y, Y))))), OUT)

    assert "qnn.lut" not in names_of(folded(graph(before, x=SHAPE, y=SHAPE)))


def test_slopes_per_channel_stay_float_and_say_why() -> None:
    slopes = const(np.array([0.25, 0.5, 0.125], np.float32))
    after = folded(_unary(lambda b, x: relax.op.nn.prelu(x, slopes, 1)))
    assert reasons(after) == [("node", "prelu: a slope per channel has no integer rule")]


def test_a_quantized_slope_or_exponent_counts_as_a_number() -> None:
    def slope(b: Graph, x: Expr) -> Expr:
        return relax.op.nn.prelu(x, b.dequantize(const(np.array([16], np.int8)), grid(2**-6)), 1)

    def exponent(b: Graph, x: Expr) -> Expr:
        return relax.op.power(x, b.dequantize(const(np.int8(2)), grid(1.0)))

    for op in (slope, exponent):
        assert names_of(folded(_unary(op))) == ["qnn.quantize", "qnn.lut"]
