"""Requantizes that change nothing go; the others move to where they cost nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, graph, grid, names_of, relax, sources_of
from tests.support.rewrite import (
    check_rewrite,
    check_same_numbers,
    check_sound,
    check_unchanged,
    reasons,
)
from tvm_qat.ir import BlockBuilder, Expr, IRModule, TensorType, Tuple, Var, const, op_name
from tvm_qat.passes.cancel_requantize_pairs import cancel_requantize_pairs
from tvm_qat.qnn import build as qnn

X = grid(2**-5, 3)
OUT = grid(2**-4, -5)
SHAPE = (("n", 4, 6, 6), "int8")
WINDOW = {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
CHANNELS = grid(2.0**-12 * np.array([1, 2, 1, 4]), 0, "int32", 1)


def _cancel(before: IRModule) -> IRModule:
    after = cancel_requantize_pairs(before)
    check_sound(cancel_requantize_pairs, after)
    check_same_numbers(before, after)
    return after


def _conv(b: Graph, q: Expr, name: str | None = None) -> Expr:
    kernel = np.random.default_rng(0).integers(-127, 127, (4, 4, 1, 1)).astype(np.int8)
    return b(qnn.conv(q, const(kernel), 3, **WINDOW), name)


def test_dequantize_and_quantize_on_one_grid_vanish() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.flip(b.quantize(b.dequantize(x, X), X, "pair"), 1))

    after = check_rewrite(
        cancel_requantize_pairs, graph(before, x=SHAPE), graph(lambda b, x: b(relax.op.flip(x, 1)), x=SHAPE)
    )
    assert reasons(after, "cancelled") == [("pair", "dequantize and quantize")]


def test_dequantize_and_quantize_on_different_grids_become_a_requantize() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b.dequantize(x, X), OUT)

    expected = graph(lambda b, x: b(qnn.requantize(x, X, OUT)), x=SHAPE)
    check_same_numbers(
        graph(before, x=SHAPE),
        check_rewrite(cancel_requantize_pairs, graph(before, x=SHAPE), expected),
    )


def test_a_quantize_with_a_narrower_range_still_clamps() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(b.dequantize(x, X), X.with_(qmin=0))

    assert names_of(_cancel(graph(before, x=SHAPE))) == ["qnn.requantize"]


def test_a_requantize_onto_its_own_grid_vanishes() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.flip(b(qnn.requantize(x, X, X)), 1))

    assert names_of(_cancel(graph(before, x=SHAPE))) == ["flip"]


def test_requantizes_onto_different_grids_are_both_kept() -> None:
    """Training saw both roundings."""

    def body(b: Graph, x: Expr) -> Expr:
        return b(qnn.requantize(b(qnn.requantize(x, X, OUT)), OUT, X))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE))


def test_a_dequantized_tensor_that_is_read_in_float_too_keeps_its_dequantize() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        d = b.dequantize(x, X)
        return b.quantize(d, X), b(relax.op.exp(d))

    assert names_of(_cancel(graph(before, x=SHAPE))) == ["qnn.dequantize", "exp"]


@pytest.mark.parametrize(
    "move",
    [
        lambda x: relax.op.nn.max_pool2d(x, (2, 2), (2, 2)),
        lambda x: relax.op.permute_dims(x, [0, 2, 3, 1]),
        lambda x: relax.op.strided_slice(x, [2], [0], [3]),
        lambda x: relax.op.expand_dims(x, 1),
    ],
)
def test_a_requantize_moves_up_to_the_sum_it_rescales(move: object) -> None:
    axis = {"permute_dims": 3, "expand_dims": 2}

    def before(b: Graph, x: Expr) -> Expr:
        m = b(move(_conv(b, x, "conv")), "move")
        found = axis.get(op_name(b.builder.lookup_binding(m)).rpartition(".")[2], 1)
        return b(qnn.requantize(m, CHANNELS.with_(axis=found), OUT), "rescale")

    after = _cancel(graph(before, x=((2, 4, 6, 6), "int8")))
    assert names_of(after)[:2] == ["qnn.conv2d", "qnn.requantize"]
    assert sources_of(after)["qnn.requantize"] == "rescale"
    assert sources_of(after)[op_name(calls_of(after)[-1])] == "move"


def test_a_bias_stands_between_no_requantize_and_its_sum() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        s = b(relax.op.add(_conv(b, x), const(np.ones((1, 4, 1, 1), np.int32))))
        return b(qnn.requantize(b(relax.op.nn.max_pool2d(s, (2, 2))), CHANNELS, OUT))

    assert names_of(_cancel(graph(before, x=SHAPE))) == ["qnn.conv2d", "add", "qnn.requantize", "max_pool2d"]


def _heads(b: Graph, x: Expr) -> Expr:
    """Attention's heads: the channel axis is split, so no parameters per channel pass it."""
    return b(relax.op.permute_dims(b(relax.op.reshape(x, (2, 2, 2, 36))), [0, 3, 1, 2]), "heads")


def test_a_requantize_passes_several_steps_of_movement() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        turned = b(relax.op.permute_dims(_conv(b, x), [0, 2, 3, 1]))
        widened = b(relax.op.expand_dims(turned, 1))
        return b(qnn.requantize(widened, CHANNELS.with_(axis=4), OUT))

    after = _cancel(graph(before, x=((2, 4, 6, 6), "int8")))
    assert names_of(after) == ["qnn.conv2d", "qnn.requantize", "permute_dims", "expand_dims"]


def test_a_sum_dequantized_and_quantized_around_movement_is_requantized_before_it() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(_heads(b, b.dequantize(_conv(b, x), CHANNELS)), OUT, "grid")

    after = _cancel(graph(before, x=((2, 4, 6, 6), "int8")))
    assert names_of(after) == ["qnn.conv2d", "qnn.requantize", "reshape", "permute_dims"]
    assert sources_of(after)["qnn.requantize"] == "grid"


def test_what_is_computed_in_float_is_quantized_before_it_is_moved() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b.quantize(_heads(b, b(relax.op.exp(b.dequantize(_conv(b, x), CHANNELS)))), OUT, "grid")

    after = _cancel(graph(before, x=((2, 4, 6, 6), "int8")))
    assert names_of(after)[-4:] == ["exp", "qnn.quantize", "reshape", "permute_dims"]
    assert sources_of(after)["qnn.quantize"] == "grid"
    assert sources_of(after)["relax.permute_dims"] == "heads"


@pytest.mark.parametrize("case", ["an input", "read twice", "by channel", "a part", "copies"])
def test_a_quantize_that_would_cost_more_elsewhere_keeps_its_place(case: str) -> None:
    def body(b: Graph, x: Expr) -> Expr | tuple:
        real = x if case == "an input" else b(relax.op.exp(x))
        if case == "a part":
            return b.quantize(b(relax.op.strided_slice(real, [2], [0], [3])), OUT)
        if case == "copies":
            return b.quantize(b(relax.op.broadcast_to(real, (2, 4, 6, 6))), OUT)
        moved = b(relax.op.permute_dims(real, [0, 2, 3, 1]))
        q = b.quantize(moved, grid([0.5, 0.25, 0.5, 1.0], axis=3) if case == "by channel" else OUT)
        return (q, b(relax.op.abs(real))) if case == "read twice" else q

    check_unchanged(cancel_requantize_pairs, graph(body, x=((1, 4, 6, 6), "float32")))


@pytest.mark.parametrize("others", ["dequantized", "moved"])
def test_movement_that_others_read_in_float_keeps_its_place(others: str) -> None:
    def body(b: Graph, x: Expr) -> tuple:
        real = b.dequantize(_conv(b, x), CHANNELS)
        moved = _heads(b, real)
        return b.quantize(moved, OUT), b(relax.op.exp(real if others == "dequantized" else moved))

    check_unchanged(cancel_requantize_pairs, graph(body, x=((2, 4, 6, 6), "int8")))


def test_a_sum_that_others_read_keeps_its_place() -> None:
    def body(b: Graph, x: Expr) -> tuple:
        s = _conv(b, x)
        m = b(relax.op.nn.max_pool2d(s, (2, 2)))
        return b(qnn.requantize(m, CHANNELS, OUT)), b(relax.op.flip(s, 2))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE))


def test_a_requantize_of_a_moved_input_keeps_its_place() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        return b(qnn.requantize(b(relax.op.nn.max_pool2d(x, (2, 2))), X, OUT))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE))


def test_the_parts_of_a_concatenation_are_brought_to_its_grid_before_it() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.concatenate([x, y], [X, OUT], OUT, 1), "cat")

    def expected(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(relax.op.concat(Tuple([b(qnn.requantize(x, X, OUT)), y]), 1))

    mods = graph(before, x=SHAPE, y=SHAPE), graph(expected, x=SHAPE, y=SHAPE)
    check_same_numbers(mods[0], check_rewrite(cancel_requantize_pairs, *mods))


def test_a_part_that_others_read_keeps_the_concatenation_whole() -> None:
    def body(b: Graph, x: Expr, y: Expr) -> tuple:
        return b(qnn.concatenate([x, y], [X, OUT], OUT, 1)), b(relax.op.flip(x, 1))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE, y=SHAPE))


def test_equal_requantizes_of_one_tensor_become_one() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        return tuple(b(relax.op.flip(b(qnn.requantize(x, X, OUT)), axis)) for axis in (1, 2))

    assert names_of(_cancel(graph(before, x=SHAPE))).count("qnn.requantize") == 1


def test_variables_of_one_name_are_told_apart() -> None:
    """`m` is the name of a tensor read once and of one read twice."""
    builder = BlockBuilder()
    x, y = (Var(n, TensorType((2, 4, 6, 6), "int8")) for n in "xy")
    g = Graph(builder)
    with builder.function("main", [x, y], attrs={"global_symbol": "main", "input_names": ["x", "y"]}):
        with builder.dataflow():
            kept = g(relax.op.nn.max_pool2d(_conv(g, x), (2, 2)))
            single = g(relax.op.nn.max_pool2d(_conv(g, y), (2, 2)))
            parts = [g(qnn.requantize(q, CHANNELS, OUT)) for q in (kept, single)]
            result = builder.emit_output(Tuple([*parts, kept]))
        builder.emit_func_output(result)
    mod = builder.get()
    names = names_of(_cancel(mod))
    assert names == [
        "qnn.conv2d", "max_pool2d", "qnn.conv2d", "qnn.requantize", "qnn.requantize", "max_pool2d",
    ]  # fmt: skip


def test_parameters_computed_at_run_time_are_left_alone() -> None:
    def body(b: Graph, x: Expr, s: Expr) -> Expr:
        zero = const(np.int32(0))
        d = b(qnn.dequantize_at_run_time(x, s, zero))
        return b(qnn.quantize_at_run_time(d, s, zero, "int8", -128, 127))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE, s=((), "float32")))


def test_channels_of_one_axis_do_not_become_those_of_another() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        d = b.dequantize(x, grid([0.5, 0.25, 0.5, 1], axis=1))
        return b.quantize(d, grid([0.5, 0.25, 0.5, 1, 1, 1], axis=2))

    check_unchanged(cancel_requantize_pairs, graph(body, x=SHAPE))
