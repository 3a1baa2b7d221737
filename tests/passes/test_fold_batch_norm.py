"""Batch norms join the weights before them, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax, sources_of
from tests.support.rewrite import check_rewrite, check_same_numbers, check_sound, check_unchanged, reasons
from tvm_qat.ir import Expr, IRModule, array_of, const, op_name
from tvm_qat.passes.fold_batch_norm import fold_batch_norm
from tvm_qat.passes.fold_into_qnn import fold_into_qnn

X = grid(2**-5, 3)
W = grid(2**-7)
OUT = grid(2**-4, -5)
SHAPE = (("n", 3, 4, 4), "float32")
FACTORS = np.array([0.5, -2, 0, 4], np.float32)


def _norm(
    b: Graph, x: Expr, factors: np.ndarray = FACTORS, axis: int = 1, name: str = "bn", **options: object
) -> Expr:
    """With variance and mean such that all arithmetic is exact: y = x * factors + [1, -1, ...]."""
    n = factors.size
    offset = np.where(np.arange(n) % 2, -1, 1).astype(np.float32)
    mean = np.full(n, 0.5, np.float32)
    beta = offset + mean * factors
    stats = [const(v.astype(np.float32)) for v in (factors, beta, mean, np.full(n, 0.75))]
    return b(
        b(relax.op.nn.batch_norm(x, *stats, axis, epsilon=0.25, training=False, **options), name)[0], name
    )


def _conv(b: Graph, d: Expr, w: Expr, name: str | None = None) -> Expr:
    return b(relax.op.nn.conv2d(d, w), name)


def _fold(before: IRModule, share: float = 0.0) -> IRModule:
    after = fold_batch_norm(before)
    check_sound(fold_batch_norm, after)
    check_same_numbers(before, after, max_steps=1, step=1e-4, share=share)
    return after


def test_a_float_weight_takes_the_factors() -> None:
    kernel = np.random.default_rng(0).normal(size=(4, 3, 1, 1)).astype(np.float32)
    offset = np.array([1, -1, 1, -1], np.float32).reshape(1, 4, 1, 1)

    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _conv(b, x, const(kernel)))

    def expected(b: Graph, x: Expr) -> Expr:
        w = const(kernel * FACTORS.reshape(4, 1, 1, 1))
        return b(relax.op.add(_conv(b, x, w), const(offset)))

    check_rewrite(fold_batch_norm, graph(before, x=SHAPE), graph(expected, x=SHAPE))


def test_a_quantized_weight_keeps_its_integers_and_its_scale_takes_the_factors() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _conv(b, x, b.weight((4, 3, 1, 1), W), "conv"))

    after = _fold(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.dequantize", "conv2d", "add"]
    (weight,) = [c for c in calls_of(after) if op_name(c) == "qnn.dequantize"]
    np.testing.assert_array_equal(array_of(weight.args[1]), [2**-8, 2**-6, 2**-7, 2**-5])
    assert reasons(after, "batch_norm_folded") == [("bn", "relax.nn.batch_norm")]
    assert sources_of(after)["relax.nn.conv2d"] == "conv"


@pytest.mark.parametrize("params", [W, grid(W.scale * [1, 2, 4, 8], axis=0), grid(2**-7, 128, "uint8")])
def test_a_fake_quantized_weight_is_folded_into_integers(params: object) -> None:
    kernel = np.random.default_rng(0).uniform(-0.9, 0.9, size=(4, 3, 1, 1)).astype(np.float32)

    def before(b: Graph, x: Expr) -> Expr:
        c = _conv(b, b.fake(x, X), b.fake(const(kernel), params))
        return b.quantize(b(relax.op.nn.relu(_norm(b, c))), OUT)

    mod = graph(before, x=SHAPE)
    after = fold_into_qnn(fold_batch_norm(mod))
    assert float_ops(after) == []
    check_same_numbers(mod, after)


def test_a_bias_before_the_norm_is_scaled_with_the_weight() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = _conv(b, x, b.weight((4, 3, 1, 1), W))
        return _norm(b, b(relax.op.add(c, const(np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)))))

    assert names_of(_fold(graph(before, x=SHAPE))) == ["qnn.dequantize", "conv2d", "add", "add"]


def test_a_norm_after_a_norm_is_folded_too() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _norm(b, _conv(b, x, b.weight((4, 3, 1, 1), W))), name="again")

    after = _fold(graph(before, x=SHAPE))
    assert len(reasons(after, "batch_norm_folded")) == 2


def test_depthwise_grouped_transposed_and_dense_weights_take_the_factors() -> None:
    def depthwise(b: Graph, x: Expr) -> Expr:
        w = b.weight((3, 1, 2, 2), W)
        return _norm(b, b(relax.op.nn.conv2d(x, w, groups=3)), FACTORS[:3])

    def transposed(b: Graph, x: Expr) -> Expr:
        return _norm(b, b(relax.op.nn.conv2d_transpose(x, b.weight((3, 4, 2, 2), W))))

    def dense(b: Graph, x: Expr) -> Expr:
        return _norm(b, b(relax.op.matmul(x, b.weight((3, 4), W))), axis=1)

    for body, shape in ((depthwise, SHAPE[0]), (transposed, SHAPE[0]), (dense, ("n", 3))):
        after = _fold(graph(body, x=(shape, "float32")))
        assert "batch_norm" not in names_of(after) and "multiply" not in names_of(after)


def test_a_norm_without_scale_and_center_is_folded() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _conv(b, x, b.weight((4, 3, 1, 1), W)), center=False, scale=False)

    assert "batch_norm" not in names_of(_fold(graph(before, x=SHAPE)))


def test_a_norm_that_follows_nothing_foldable_becomes_a_product_and_a_sum() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, x, np.array([0.5, 2, 4], np.float32))

    assert names_of(_fold(graph(before, x=SHAPE))) == ["multiply", "add"]


def test_a_norm_of_a_quantized_tensor_with_positive_factors_runs_on_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(_norm(b, b.fake(x, X), np.array([0.5, 2, 4], np.float32)), OUT)

    mod = graph(before, x=SHAPE)
    after = fold_into_qnn(fold_batch_norm(mod))
    assert names_of(after) == ["qnn.quantize", "qnn.add"]
    check_same_numbers(mod, after)


def test_a_mirrored_weight_without_room_is_left_as_it_is() -> None:
    kernel = np.full((4, 3, 1, 1), -128, np.int8)

    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _conv(b, x, b.dequantize(const(kernel), W)))

    after = _fold(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.dequantize", "conv2d", "multiply", "add"]


def test_a_convolution_that_others_read_keeps_its_weight() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        c = _conv(b, x, b.weight((4, 3, 1, 1), W))
        return _norm(b, c), c

    after = _fold(graph(before, x=SHAPE))
    assert names_of(after) == ["qnn.dequantize", "conv2d", "multiply", "add"]


def test_a_weight_that_two_convolutions_share_is_scaled_for_one_only() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        w = b.weight((4, 3, 1, 1), W)
        return _norm(b, _conv(b, x, w)), _conv(b, x, w)

    _fold(graph(before, x=SHAPE))


def test_a_relu_between_keeps_the_norm_apart() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.relu(_conv(b, x, b.weight((4, 3, 1, 1), W))))
        return _norm(b, c)

    assert "multiply" in names_of(_fold(graph(before, x=SHAPE)))


def test_a_norm_along_another_axis_is_kept_apart() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return _norm(b, _conv(b, x, b.weight((4, 3, 1, 1), W)), axis=3)

    assert "multiply" in names_of(_fold(graph(before, x=SHAPE)))


def test_a_norm_with_parameters_from_outside_is_kept() -> None:
    def body(b: Graph, x: Expr, gamma: Expr) -> Expr:
        ones = const(np.ones(3, np.float32))
        return b(b(relax.op.nn.batch_norm(x, gamma, ones, ones, ones, 1, training=False))[0])

    check_unchanged(fold_batch_norm, graph(body, x=SHAPE, gamma=((3,), "float32")))


def test_a_quantized_bias_before_the_norm_is_scaled_with_the_weight() -> None:
    integers = np.array([100, -200, 300, 50], np.int32)

    def before(b: Graph, x: Expr) -> Expr:
        c = _conv(b, b.fake(x, X), b.weight((4, 3, 1, 1), W))
        bias = b(relax.op.reshape(b.dequantize(const(integers), grid(2**-12, 0, "int32")), (1, 4, 1, 1)))
        return b.quantize(_norm(b, b(relax.op.add(c, bias))), OUT)

    mod = graph(before, x=SHAPE)
    after = fold_into_qnn(fold_batch_norm(mod))
    assert float_ops(after) == [] and len(reasons(after, "batch_norm_folded")) == 1
    check_same_numbers(mod, after)
