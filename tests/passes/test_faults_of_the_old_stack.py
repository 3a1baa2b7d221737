"""What Relay's quantization did wrong, measured on its last release; each is right here.

Also the complaints of users of other stacks that concern the passes.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import check_same_numbers, random_inputs, reasons
from tvm_qat import pipeline
from tvm_qat.ir import Expr, IRModule, Tuple, bindings_of, const, is_const, op_name
from tvm_qat.qnn import arithmetic
from tvm_qat.verification.evaluate import evaluate_module

X = grid(0.0371, 3)
Y = grid(0.0113, 131, "uint8")
OUT = grid(0.0517, -5)
SHAPE = ((2, 4, 8, 8), "float32")


def _steps(before: IRModule, seed: int = 0) -> np.ndarray:
    """|integer result - simulation| in steps of the output, over random inputs."""
    after = pipeline.run(before)
    inputs = random_inputs(before, seed)
    (old,), (new,) = evaluate_module(before, inputs), evaluate_module(after, inputs)
    return np.abs(new.astype(np.int64) - old)


def test_leaky_relu_is_applied_once() -> None:
    """Relay: 43 steps off. A table holds the function itself, so no input is off."""
    mod = graph(lambda b, x: b.quantize(b(relax.op.nn.leakyrelu(b.fake(x, X), 0.1)), OUT), x=SHAPE)
    assert _steps(mod).max() == 0


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
def test_a_float_constant_is_not_put_on_the_other_operands_grid(name: str) -> None:
    """Relay: 126 steps off, where the constant lies outside of the other operand's range."""
    for value in (np.float32(40.0), np.float32(0.001)):
        out = {"multiply": X.scale * value, "divide": X.scale / value}.get(name, value / 50)

        def before(b: Graph, x: Expr, value: np.float32 = value, out: float = float(out)) -> Expr:
            y = b(getattr(relax.op, name)(b.fake(x, X), const(value)))
            return b.quantize(y, grid(out))

        assert _steps(graph(before, x=SHAPE)).max() <= 1


def test_a_global_average_is_rounded_and_not_truncated() -> None:
    """Relay: off by one on 49 %."""

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.mean(b.fake(x, X), [2, 3], True)), X)

    mod = graph(before, x=((64, 32, 7, 7), "float32"))
    steps = _steps(mod)
    assert steps.max() <= 1 and (steps > 0).mean() < 0.01


def test_an_average_pool_is_rounded_and_not_truncated() -> None:
    mod = graph(
        lambda b, x: b.quantize(b(relax.op.nn.avg_pool2d(b.fake(x, X), (3, 3), (2, 2), (1, 1))), X),
        x=((8, 16, 16, 16), "float32"),
    )
    steps = _steps(mod)
    assert steps.max() <= 1 and (steps > 0).mean() < 0.02  # windows of 4 and 6 at the border have ties


def test_an_addition_rounds_once() -> None:
    """Relay rounded both operands to the output's grid first: 29 % were off by one."""

    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.add(b.fake(x, X), b.fake(y, Y))), OUT)

    big = ((16, 16, 16, 16), "float32")
    steps = _steps(graph(before, x=big, y=big))
    assert steps.max() <= 1 and (steps > 0).mean() < 0.001


def test_a_matrix_product_takes_weights_with_parameters_per_channel() -> None:
    """Relay: segmentation fault."""
    params = grid(np.array([0.01, 0.02, 0.005]), np.array([1, 0, -7]), axis=1)

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.matmul(b.fake(x, X), b.weight((8, 3), params))), OUT)

    mod = graph(before, x=((5, 8), "float32"))
    assert _steps(mod).max() <= 1 and float_ops(pipeline.run(mod)) == []


def test_zero_points_of_zeros_are_known_at_compile_time() -> None:
    """Relay computed a vector of zeros at run time and subtracted what it gave."""
    channels = np.array([0.01, 0.02, 0.005, 0.01])

    def before(b: Graph, x: Expr) -> Expr:
        scale, zeros = const(channels, "float32"), const(np.zeros(4, np.int8))
        w = const(np.random.default_rng(0).normal(size=(4, 4, 1, 1)), "float32")
        w = b(relax.op.quantize(w, scale, zeros, axis=0))
        w = b(relax.op.dequantize(w, scale, zeros, axis=0))
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), w)), OUT)

    mod = graph(before, x=SHAPE)
    after = pipeline.run(mod)
    assert [n for n in names_of(after) if n in ("qnn.quantize", "subtract", "zeros")] == ["qnn.quantize"]
    (conv,) = [c for c in calls_of(after) if op_name(c) == "qnn.conv2d"]
    assert all(is_const(arg) for arg in conv.args[1:])
    check_same_numbers(mod, after, max_steps=1)


def test_one_operator_without_a_rule_leaves_no_region_in_float_and_not_without_a_word() -> None:
    """Relay: the whole region stayed in float, silently."""

    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        for i in range(4):
            d = b.fake(b(relax.op.nn.conv2d(d, b.weight((4, 4, 1, 1), grid(0.004), i)), f"conv{i}"), OUT)
            if i == 1:
                d = b.fake(b(relax.op.cumsum(d, 1), "odd"), OUT)
        return b.quantize(d, OUT)

    after = pipeline.run(graph(before, x=SHAPE))
    assert [name for name in float_ops(after) if name != "permute_dims"] == ["cumsum"]
    assert names_of(after).count("qnn.conv2d") == 4
    assert reasons(after) == [("odd", "cumsum: it has no integer rule")]


# ---------------------------------------------------------------- what users of other stacks met


@pytest.mark.parametrize(
    "move",
    [
        lambda x: relax.op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1]),
        lambda x: relax.op.permute_dims(x, [0, 1, 3, 2]),
        lambda x: relax.op.reshape(
            relax.op.permute_dims(relax.op.reshape(x, (2, 4, 4, 2, 8)), [0, 1, 3, 2, 4]), (2, 4, 8, 8)
        ),
        lambda x: relax.op.strided_slice(x, [2], [1], [7]),
    ],
)  # fmt: skip
def test_pad_transpose_and_depth_to_space_do_not_stop_the_integers(move: object) -> None:
    """onnxruntime#21496, #21287."""

    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b(move(b.fake(x, X))), b.weight((4, 4, 1, 1), grid(0.01))))
        return b.quantize(c, OUT)

    mod = graph(before, x=SHAPE)
    assert float_ops(pipeline.run(mod)) == [] and _steps(mod).max() <= 1


@pytest.mark.parametrize("axis", [0, 1])
def test_parameters_on_the_axis_that_is_summed_are_refused_and_on_the_other_used(axis: int) -> None:
    """onnxruntime#19694, #21712, #26456, #28228: a square weight hides a wrong axis."""
    params = grid(np.array([0.01, 0.02, 0.005, 0.04]), axis=axis)

    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.matmul(b.fake(x, X), b.weight((4, 4), params)), "fc"), OUT)

    mod = graph(before, x=((5, 4), "float32"))
    after = pipeline.run(mod)
    assert _steps(mod).max() <= 1
    assert (float_ops(after) == []) == (axis == 1)
    assert [node for node, _ in reasons(after)] == ([] if axis == 1 else ["fc"])


def test_a_bias_on_a_scale_of_its_own_is_not_taken_for_accumulator_steps() -> None:
    """onnxruntime#24711."""
    bias = np.array([100, -200, 300, 50], np.int32).reshape(1, 4, 1, 1)

    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 4, 1, 1), grid(0.01))))
        return b.quantize(b(relax.op.add(c, b.dequantize(const(bias), grid(0.002, 0, "int32")))), OUT)

    mod = graph(before, x=SHAPE)
    assert _steps(mod).max() <= 1 and float_ops(pipeline.run(mod)) == []


def test_a_bias_that_would_overflow_int32_does_not_wrap() -> None:
    """onnxruntime#25278: a tiny weight scale makes the bias huge in accumulator steps."""
    bias = np.full((1, 4, 1, 1), 5.0, np.float32)

    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.nn.conv2d(b.fake(x, X), b.weight((4, 4, 1, 1), grid(1e-9))))
        return b.quantize(b(relax.op.add(c, const(bias))), OUT)

    mod = graph(before, x=SHAPE)
    assert _steps(mod).max() <= 1 and float_ops(pipeline.run(mod)) == []


def test_one_sided_quantization_costs_one_operator_and_says_so() -> None:
    """tvm#12666."""

    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        s = b.fake(b(relax.op.add(b.fake(x, X), y), "one-sided"), OUT)
        return b.quantize(b(relax.op.nn.conv2d(s, b.weight((4, 4, 1, 1), grid(0.01)))), OUT)

    after = pipeline.run(graph(before, x=SHAPE, y=SHAPE))
    assert float_ops(after) == ["add"] and "qnn.conv2d" in names_of(after)
    assert reasons(after) == [("one-sided", "add: one of its inputs is not quantized")]


def test_a_detector_with_several_outputs_folds() -> None:
    """tvm#12707: crash."""

    def before(b: Graph, x: Expr) -> tuple:
        d = b.fake(b(relax.op.nn.conv2d(b.fake(x, X), b.weight((8, 4, 1, 1), grid(0.01)))), OUT)
        boxes, scores = (b(b(relax.op.split(d, 2, 1))[i]) for i in range(2))
        score = b(relax.op.nn.softmax(scores, 1))
        return (
            b(relax.op.permute_dims(boxes, [0, 2, 3, 1])),
            score,
            b(relax.op.concat(Tuple([boxes, boxes]), 1)),
        )

    mod = graph(before, x=SHAPE)
    after = pipeline.run(mod)
    check_same_numbers(mod, after, max_steps=1, step=float(OUT.scale))
    assert sum(len(block.bindings) for block in after["main"].body.blocks) == len(
        list(bindings_of(after["main"]))
    )


def test_a_batch_norm_after_a_linear_layer_is_folded() -> None:
    """ao#4463."""
    stats = [np.float32([1, 2, 0.5]), np.float32([0, 1, 2]), np.float32([0.5, 0, -1]), np.float32([1, 2, 3])]

    def before(b: Graph, x: Expr) -> Expr:
        c = b(relax.op.matmul(b.fake(x, X), b.weight((8, 3), grid(0.01))))
        c = b(relax.op.add(c, const(np.ones(3, np.float32))))
        c = b(b(relax.op.nn.batch_norm(c, *map(const, stats), 1, training=False))[0])
        return b.quantize(c, OUT)

    mod = graph(before, x=((5, 8), "float32"))
    assert float_ops(pipeline.run(mod)) == [] and _steps(mod).max() <= 1


def test_half_steps_round_to_even_as_the_quantize_operator_does() -> None:
    """Ties are where stacks differ from their own simulation; a requantize by a power of two has many."""
    halves = np.arange(-128, 128).astype(np.int8).reshape(2, 4, 4, 8)
    mod = graph(lambda b, q: b.quantize(b.dequantize(q, grid(0.5)), grid(1.0)), q=((2, 4, 4, 8), "int8"))
    (got,) = evaluate_module(pipeline.run(mod), [halves])
    np.testing.assert_array_equal(got, arithmetic.quantize(halves * np.float32(0.5), grid(1.0)))
