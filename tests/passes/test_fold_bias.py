"""A constant that is added to a sum of products joins it in int32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import folded, reasons
from tvm_qat.ir import Expr, IRModule, array_of, const, op_name
from tvm_qat.passes.fold_into_qnn import fold_into_qnn

X = grid(2**-5, 3)
W = grid(2**-7)
Y = grid(2**-4, -5)
CHANNELS = 2.0 ** np.array([-7, -8, -6, -7])


def _biased(bias: object, *, weight: object = None, shape: tuple = (2, 3, 4, 4)) -> IRModule:
    """conv + bias; `bias` is a function of the graph that returns the bias expression."""

    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((4, 3, 1, 1), weight or grid(CHANNELS, axis=0))
        c = b(relax.op.nn.conv2d(b.fake(x, X), w), "c")
        return b.quantize(b(relax.op.add(c, bias(b)), "bias"), Y)

    return graph(before, x=(shape, "float32"))


def _bias_integers(mod: IRModule) -> np.ndarray:
    (added,) = [c for c in calls_of(mod) if op_name(c) == "relax.add"]
    assert added.ty.dtype == "int32"
    return array_of(added.args[1]).reshape(-1)


INTEGERS = np.array([5, -1000, 70000, 3], np.int32)


def test_a_bias_quantized_by_the_product_of_the_scales_keeps_its_integers() -> None:
    params = grid(2.0**-5 * CHANNELS, 0, "int32", 0)
    after = folded(
        _biased(lambda b: b(relax.op.reshape(b.dequantize(const(INTEGERS), params), (1, 4, 1, 1))))
    )
    assert float_ops(after) == []
    np.testing.assert_array_equal(_bias_integers(after), INTEGERS)


def test_a_bias_quantized_by_another_scale_is_rescaled() -> None:
    params = grid(2.0**-9, 0, "int32")
    after = folded(_biased(lambda b: b.dequantize(const(INTEGERS.reshape(1, 4, 1, 1)), params)))
    assert float_ops(after) == []
    np.testing.assert_array_equal(_bias_integers(after), INTEGERS * 2.0**-9 / (2.0**-5 * CHANNELS))


REAL = np.random.default_rng(1).normal(size=(1, 4, 1, 1)).astype(np.float32)


def test_a_float_bias_is_added_on_a_finer_grid_than_the_sums() -> None:
    after = folded(_biased(lambda b: const(REAL)))
    assert float_ops(after) == []
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "left_shift", "add", "qnn.requantize"]
    steps = REAL.reshape(-1) / (2.0**-5 * CHANNELS)
    np.testing.assert_array_equal(_bias_integers(after), np.rint(steps * 2**12))


def test_a_coarse_sum_does_not_round_its_bias() -> None:
    """One step of the sum is two of the result: rounded, this bias would be 0, or 2 of its steps."""
    coarse = grid(2.0**2)
    bias = np.full((1, 4, 1, 1), 2.0**-4, np.float32)
    after = folded(_biased(lambda b: const(bias), weight=coarse))
    (shift,) = [c for c in calls_of(after) if op_name(c) == "relax.left_shift"]
    assert (_bias_integers(after) == 2.0**-4 / (2.0**-5 * 2.0**2) * 2 ** int(array_of(shift.args[1]))).all()


def test_litert_adds_a_bias_in_whole_steps() -> None:
    after = fold_into_qnn(_biased(lambda b: const(REAL)), "tflite")
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "add", "qnn.requantize"]
    np.testing.assert_array_equal(_bias_integers(after), np.rint(REAL.reshape(-1) / (2.0**-5 * CHANNELS)))


def test_a_sum_without_spare_bits_rounds_its_bias() -> None:
    """16-bit activations and 8-bit weights over 900 inputs reach 2^30."""

    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((900, 4), W)
        c = b(relax.op.matmul(b.fake(x, grid(2.0**-12, dtype="int16")), w))
        return b.quantize(b(relax.op.add(c, const(REAL.reshape(-1)))), Y)

    after = folded(graph(before, x=((2, 900), "float32")), max_steps=1)
    assert "left_shift" not in names_of(after)


def _unquantized(b: Graph, x: Expr, *after: Callable[[Expr], Expr]) -> Expr:
    """conv + a bias between two steps of the sum, and what follows, without a quantize."""
    w = b.weight((4, 3, 1, 1), grid(CHANNELS, axis=0))
    c = b(relax.op.nn.conv2d(b.fake(x, X), w), "c")
    value = b(relax.op.add(c, const(np.full((1, 4, 1, 1), 0.3, np.float32))), "bias")
    for step in after:
        value = b(step(value))
    return value


def test_a_float_bias_is_not_rounded_where_the_sum_is_needed_in_float() -> None:
    after = folded(graph(_unquantized, x=((2, 3, 4, 4), "float32")), max_steps=1, step=2.0**-20)
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.dequantize", "add"]


MOVES: dict[str, Callable[[Expr], Expr]] = {
    "moved": lambda y: relax.op.permute_dims(y, [0, 2, 3, 1]),
    "rescaled": lambda y: relax.op.multiply(y, const(np.full((1, 4, 1, 1), 3, np.float32))),
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_a_sum_that_was_changed_since_keeps_its_rounded_bias(move: Callable[[Expr], Expr]) -> None:
    before = graph(lambda b, x: _unquantized(b, x, move), x=((2, 3, 4, 4), "float32"))
    after = folded(before, max_steps=1, step=2.0**-9, share=1)
    assert _bias_integers(after).size == 4


def test_a_scalar_bias_is_added_to_every_channel() -> None:
    after = folded(_biased(lambda b: const(np.float32(0.5))))
    np.testing.assert_array_equal(_bias_integers(after), 0.5 / (2.0**-5 * CHANNELS))


def test_a_bias_along_another_axis_is_no_bias_of_channels() -> None:
    real = np.array([1, 2, 3, 4], np.float32)
    after = folded(_biased(lambda b: const(real)))
    assert "qnn.add" in names_of(after)


def test_a_bias_of_one_scale_may_lie_along_any_axis() -> None:
    real = np.array([1, 2, 3, 4], np.float32)
    after = folded(_biased(lambda b: const(real), weight=W))
    assert float_ops(after) == [] and "qnn.add" not in names_of(after)


def test_a_bias_that_does_not_fit_the_accumulator_is_added_outside_it() -> None:
    real = np.full((1, 4, 1, 1), 3e7, np.float32)
    after = folded(_biased(lambda b: const(real)))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.add"]


def test_a_bias_of_infinity_is_added_outside_the_accumulator() -> None:
    real = np.array([1, np.inf, 1, 1], np.float32).reshape(1, 4, 1, 1)
    after = folded(_biased(lambda b: const(real)))
    assert reasons(after) == [("bias", "add: a constant operand is not finite")]


def test_a_bias_of_higher_rank_keeps_the_shape_of_the_sum() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.matmul(b.fake(x, X), b.weight((5, 4), W)))
        return b.quantize(b(relax.op.add(c, const(np.ones((1, 1, 1), np.float32)))), Y)

    folded(graph(before, x=((2, 5), "float32")))


def test_a_bias_after_a_relu_is_an_addition() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.relu(b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), W)))))
        return b.quantize(b(relax.op.add(c, const(np.full((1, 4, 1, 1), -1, np.float32)))), Y)

    after = folded(graph(before, x=((2, 3, 4, 4), "float32")))
    assert float_ops(after) == []


def test_a_sum_times_positive_constants_only_changes_its_scale() -> None:
    factors = (2.0 ** np.arange(4)).astype(np.float32).reshape(1, 4, 1, 1)

    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), W)))
        c = b(relax.op.add(c, const(np.ones((1, 4, 1, 1), np.float32))))
        c = b(relax.op.divide(b(relax.op.multiply(c, const(factors))), const(np.float32(4))))
        c = b(relax.op.add(c, const(factors)))
        return b.quantize(c, Y)

    after = folded(graph(before, x=((2, 3, 4, 4), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "add", "add", "qnn.requantize"]


def test_a_sum_times_negative_constants_is_a_multiplication() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 3, 1, 1), W)))
        return b.quantize(b(relax.op.multiply(c, const(np.float32(-2)))), Y)

    assert "qnn.multiply" in names_of(folded(graph(before, x=((2, 3, 4, 4), "float32"))))
