"""Activations go channels-last, and come back where something needs the written order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.graphs import Graph, call_named, calls_of, graph, grid, names_of, relax, sources_of
from tests.support.rewrite import check_rewrite, check_same_numbers, check_sound, check_unchanged
from tvm_qat.ir import Expr, IRModule, Tuple, attrs_of, const, op_name, source_of
from tvm_qat.passes.choose_layout import choose_layout
from tvm_qat.qnn import build as qnn

X = grid(2**-5, 3)
OUT = grid(2**-4, -5)
ACC = grid(2.0**-12 * np.array([1, 2, 1, 4, 2]), 0, "int32", 1)
SHAPE = (("n", 3, 4, 6), "int8")


def _conv(b: Graph, q: Expr, out: int = 5, seed: int = 0) -> Expr:
    channels = q.ty.shape.values[1]
    kernel = np.random.default_rng(seed).integers(-127, 127, (out, int(channels), 3, 3)).astype(np.int8)
    window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
    return b(qnn.conv(q, const(kernel), 3, **window), "conv")


def _q(b: Graph, x: Expr) -> Expr:
    """An int8 tensor (n, 5, 4, 6) that a convolution made."""
    return b(qnn.requantize(_conv(b, x), ACC, OUT), "rescale")


def _lay(before: IRModule) -> IRModule:
    after = choose_layout(before)
    check_sound(choose_layout, after)
    check_same_numbers(before, after)
    return after


def test_a_convolution_reads_and_writes_channels_last() -> None:
    kernel = np.random.default_rng(0).integers(-127, 127, (5, 3, 3, 3)).astype(np.int8)
    window = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}

    def before(b: Graph, x: Expr) -> Expr:
        c = b(qnn.conv(x, const(kernel), 3, np.arange(5), **window))
        return b(qnn.requantize(c, ACC, OUT))

    def expected(b: Graph, x: Expr) -> Expr:
        t = b(relax.op.permute_dims(x, [0, 2, 3, 1]))
        layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}
        c = b(qnn.conv(t, const(kernel.transpose(0, 2, 3, 1)), 3, np.arange(5), **window, **layouts))
        return b(relax.op.permute_dims(b(qnn.requantize(c, ACC.with_(axis=3), OUT)), [0, 3, 1, 2]))

    mod = graph(before, x=SHAPE)
    check_same_numbers(mod, check_rewrite(choose_layout, mod, graph(expected, x=SHAPE)))


def test_a_chain_of_convolutions_is_transposed_at_its_ends_only() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(qnn.requantize(_conv(b, _q(b, x)), ACC, OUT))

    assert names_of(_lay(graph(before, x=SHAPE))) == [
        "permute_dims", "qnn.conv2d", "qnn.requantize", "qnn.conv2d", "qnn.requantize", "permute_dims",
    ]  # fmt: skip


@pytest.mark.parametrize(("rank", "layout", "kernel"), [(3, "NWC", "OWI"), (5, "NDHWC", "ODHWI")])
def test_one_and_three_dimensions_go_channels_last(rank: int, layout: str, kernel: str) -> None:
    spatial = rank - 2
    weight = np.random.default_rng(0).integers(-9, 9, (4, 2, *[2] * spatial)).astype(np.int8)
    axes = "DHW"[3 - spatial :]

    def before(b: Graph, x: Expr) -> Expr:
        c = qnn.conv(
            x, const(weight), 3, strides=[1] * spatial, padding=[0] * 2 * spatial,
            dilation=[1] * spatial, data_layout=f"NC{axes}", kernel_layout=f"OI{axes}",
        )  # fmt: skip
        return b(c)

    attrs = call_named(_lay(graph(before, x=((1, 2, *[4] * spatial), "int8"))), f"qnn.conv{spatial}d")
    assert (attrs["data_layout"], attrs["kernel_layout"]) == (layout, kernel)


def test_a_transposed_convolution_goes_channels_last() -> None:
    weight = np.random.default_rng(0).integers(-9, 9, (4, 3, 2, 2)).astype(np.int8)

    def before(b: Graph, x: Expr) -> Expr:
        return b(
            qnn.conv2d_transpose(
                x, const(weight), 3, strides=[2, 2], padding=[0, 0, 0, 0], output_padding=[0, 0],
                dilation=[1, 1], groups=2,
            )
        )  # fmt: skip

    attrs = call_named(_lay(graph(before, x=((1, 4, 3, 3), "int8"))), "qnn.conv2d_transpose")
    assert (attrs["data_layout"], attrs["kernel_layout"]) == ("NHWC", "IHWO")


def test_a_convolution_that_is_channels_last_is_kept() -> None:
    weight = const(np.ones((4, 2, 2, 3), np.int8))

    def body(b: Graph, x: Expr) -> Expr:
        window = {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}
        return b(qnn.conv(x, weight, 3, **window, data_layout="NHWC", kernel_layout="OHWI"))

    check_unchanged(choose_layout, graph(body, x=((1, 4, 6, 3), "int8")))


def test_tensors_that_meet_no_convolution_are_kept() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        p = b(qnn.avg_pool(x, X, OUT, pool_size=[2, 2], strides=[2, 2], padding=[0] * 4, dilation=[1, 1]))
        return b(relax.op.nn.max_pool2d(p, (2, 2)))

    check_unchanged(choose_layout, graph(body, x=SHAPE))


KEPT: dict[str, Callable[[Graph, Expr, Expr], Any]] = {
    "max_pool2d": lambda b, q, x: relax.op.nn.max_pool2d(q, (2, 2), (2, 2), (0, 1), ceil_mode=True),
    "avg_pool": lambda b, q, x: qnn.avg_pool(
        q, OUT, X, pool_size=[2, 3], strides=[1, 2], padding=[0, 1, 1, 0], dilation=[1, 1]
    ),
    "mean, kept dimensions": lambda b, q, x: qnn.mean(q, OUT, X, [2, 3], True),
    "mean over one axis": lambda b, q, x: qnn.mean(q, OUT, X, [3], True),
    "softmax over channels": lambda b, q, x: qnn.softmax(q, OUT, X, 1),
    "softmax over width": lambda b, q, x: qnn.softmax(q, OUT, X, 3),
    "table": lambda b, q, x: qnn.lut(q, np.arange(256).astype(np.uint8)),
    "requantize per channel": lambda b, q, x: qnn.requantize(
        q, OUT, grid([0.5, 0.25, 0.5, 0.125, 1], axis=1)
    ),
    "dequantize per channel": lambda b, q, x: relax.op.exp(
        b(qnn.dequantize(q, grid([0.5, 0.25, 0.5, 0.125, 0.25], axis=1)))
    ),
    "relu in float": lambda b, q, x: relax.op.nn.relu(b.dequantize(q, OUT)),
    "clip": lambda b, q, x: relax.op.clip(q, -3, 9),
    "sum of itself": lambda b, q, x: qnn.elementwise("add", q, q, OUT, OUT, X),
    "bias": lambda b, q, x: relax.op.add(q, const(np.arange(5, dtype=np.int8).reshape(1, 5, 1, 1))),
    "constant of lower rank": lambda b, q, x: relax.op.maximum(q, const(np.arange(6, dtype=np.int8))),
    "scalar constant": lambda b, q, x: relax.op.maximum(q, const(np.int8(3))),
    "constant per channel on a grid": lambda b, q, x: qnn.elementwise(
        "multiply", q, const(np.arange(5, dtype=np.int8).reshape(1, 5, 1, 1)), OUT,
        grid([0.5, 0.25, 0.5, 0.125, 1], axis=1), X,
    ),
    "pad": lambda b, q, x: relax.op.nn.pad(q, [0, 0, 1, 2, 0, 3, 4, 0], pad_value=-5),
    "split by channels": lambda b, q, x: b(relax.op.split(q, [2], 1))[0],
    "split by width": lambda b, q, x: b(relax.op.split(q, 2, -1))[1],
    "concat": lambda b, q, x: relax.op.concat(Tuple([q, q]), 1),
    "concat on two grids": lambda b, q, x: qnn.concatenate([q, q], [OUT, X], X, 1),
    "resize": lambda b, q, x: relax.op.image.resize2d(
        q, (8, 12), method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_an_operator_after_a_convolution_stays_channels_last(name: str) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(KEPT[name](b, _q(b, x), x))

    after = _lay(graph(before, x=SHAPE))
    transposes = [n for n in names_of(after) if n in ("permute_dims", "reshape")]
    assert len(transposes) == 2 and names_of(after)[-1] == transposes[-1]


RETURNED: dict[str, Callable[[Graph, Expr, Expr], Any]] = {
    "flatten": lambda b, q, x: relax.op.flatten(q),
    "reshape": lambda b, q, x: relax.op.reshape(q, (q.ty.shape.values[0], 5, 24)),
    "max over an axis": lambda b, q, x: relax.op.max(q, 1),
    "argmax": lambda b, q, x: relax.op.argmax(q, 1),
    "flip": lambda b, q, x: relax.op.flip(q, 2),
    "a constant of higher rank": lambda b, q, x: relax.op.maximum(
        q, const(np.ones((2, 1, 1, 1, 1), np.int8))
    ),
    "transpose": lambda b, q, x: relax.op.permute_dims(q, [0, 3, 2, 1]),
    "reversed": lambda b, q, x: relax.op.permute_dims(q),
    "mean without dimensions": lambda b, q, x: qnn.mean(q, OUT, X, [1, 2], False),
}


@pytest.mark.parametrize("name", RETURNED)
def test_an_operator_that_needs_the_written_order_gets_it(name: str) -> None:
    _lay(graph(lambda b, x: b(RETURNED[name](b, _q(b, x), x)), x=SHAPE))


def test_a_transpose_to_channels_last_cancels() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.permute_dims(_q(b, x), [0, 2, 3, 1]))

    assert names_of(_lay(graph(before, x=SHAPE))) == ["permute_dims", "qnn.conv2d", "qnn.requantize"]


def test_what_was_dequantized_is_turned_back_as_integers() -> None:
    after = _lay(graph(lambda b, x: b(qnn.dequantize(_q(b, x), OUT), "out"), x=SHAPE))
    *_, turned, result = calls_of(after)
    assert (op_name(turned), op_name(result)) == ("relax.permute_dims", "qnn.dequantize")
    assert str(turned.ty.dtype) == OUT.dtype
    assert source_of(turned) == "out"


def test_a_global_mean_needs_no_way_back() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(qnn.mean(_q(b, x), OUT, X, [2, 3], False))

    assert names_of(_lay(graph(before, x=SHAPE)))[-1] == "qnn.mean"


def test_a_kept_mean_that_is_flattened_is_reshaped_and_not_transposed() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        m = b(qnn.mean(_q(b, x), OUT, X, [2, 3], True))
        return b(relax.op.reshape(m, (x.ty.shape.values[0], 5)))

    assert names_of(_lay(graph(before, x=SHAPE))).count("permute_dims") == 1


def test_a_residual_from_the_written_order_is_turned_once() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        q = b(qnn.requantize(_conv(b, x, 3), grid(2**-10, 0, "int32"), OUT))
        s = b(qnn.elementwise("add", q, x, OUT, X, OUT))
        return b(qnn.elementwise("add", s, x, OUT, X, OUT))

    assert names_of(_lay(graph(before, x=SHAPE))).count("permute_dims") == 2


def test_an_activation_of_lower_rank_broadcasts_in_the_written_order() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.elementwise("add", _q(b, x), y, OUT, X, OUT))

    _lay(graph(before, x=SHAPE, y=((4, 6), "int8")))


def test_a_tensor_used_in_both_orders_is_turned_back_once() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        q = _q(b, x)
        return b(relax.op.flatten(q)), b(relax.op.flip(q, 1)), b(qnn.requantize(_conv(b, q), ACC, OUT))

    after = _lay(graph(before, x=SHAPE))
    assert names_of(after).count("permute_dims") == 3


def test_the_node_names_stay() -> None:
    after = _lay(graph(lambda b, x: _q(b, x), x=SHAPE))
    found = sources_of(after)
    assert (found["qnn.conv2d"], found["qnn.requantize"]) == ("conv", "rescale")


def test_channels_of_an_operator_follow_to_the_last_axis() -> None:
    after = _lay(graph(lambda b, x: _q(b, x), x=SHAPE))
    (rescale,) = [c for c in calls_of(after) if op_name(c) == "qnn.requantize"]
    assert attrs_of(rescale)["input_axis"] == 3
