"""Operators that move values run on the integers as they are."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax, sources_of
from tests.support.rewrite import folded, reasons
from tvm_qat.ir import Expr, IRModule, Tuple, const, dtype_of, op_name
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qparams import QParams

X = grid(2**-5, 3)
OUT = grid(2**-4, -5)
SHAPE = ((2, 4, 6, 6), "float32")


def _moved(op: Callable, params: QParams = X, out: QParams = OUT, shape: tuple = SHAPE) -> IRModule:
    return graph(lambda b, x: b.quantize(b(op(b.fake(x, params)), "node"), out), x=shape)


MOVES = {
    "reshape": lambda x: relax.op.reshape(x, (2, 4, 36)),
    "flatten": relax.op.flatten,
    "permute_dims": lambda x: relax.op.permute_dims(x, [0, 2, 3, 1]),
    "squeeze": lambda x: relax.op.squeeze(relax.op.expand_dims(x, 1), 1),
    "broadcast_to": lambda x: relax.op.broadcast_to(x, (3, 2, 4, 6, 6)),
    "strided_slice": lambda x: relax.op.strided_slice(x, [1, 3], [0, 5], [4, 0], [2, -2]),
    "take": lambda x: relax.op.take(x, const(np.array([3, 0, 1], np.int64)), 1),
    "flip": lambda x: relax.op.flip(x, 2),
    "tile": lambda x: relax.op.tile(x, (1, 2, 1, 1)),
    "repeat": lambda x: relax.op.repeat(x, 2, 1),
    "max_pool2d": lambda x: relax.op.nn.max_pool2d(x, (3, 3), (2, 2), (1, 1)),
    "max": lambda x: relax.op.max(x, [2, -1], keepdims=True),
    "min": lambda x: relax.op.min(x, -1),
    "pad with zero": lambda x: relax.op.nn.pad(x, [0, 0, 0, 1, 1, 0, 2, 1]),
    "pad with a value": lambda x: relax.op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=-0.25),
    "reflect": lambda x: relax.op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], "reflect"),
    "resize": lambda x: relax.op.image.resize2d(
        x, (12, 12), method="nearest_neighbor", coordinate_transformation_mode="asymmetric",
        rounding_method="floor",
    ),
}  # fmt: skip


@pytest.mark.parametrize("params", [X, grid(2**-5, 130, "uint8"), grid(2**-9, 3, "int16")])
@pytest.mark.parametrize("name", MOVES)
def test_a_movement_runs_on_integers(name: str, params: QParams) -> None:
    assert float_ops(folded(_moved(MOVES[name], params))) == []


@pytest.mark.parametrize("name", ["reshape", "strided_slice", "max_pool2d", "pad with zero", "max"])
def test_a_movement_of_a_relu_runs_on_integers(name: str) -> None:
    after = folded(_moved(lambda x: MOVES[name](relax.op.nn.relu(x)), grid(2**-5, 3)))
    assert float_ops(after) == []


@pytest.mark.parametrize("name", ["reshape", "permute_dims", "take", "max_pool2d", "flip", "tile"])
def test_a_movement_of_a_sum_waits_for_its_grid(name: str) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        s = b(relax.op.nn.relu(b(relax.op.add(d, b(relax.op.flip(d, 3))), "sum")))
        return b.quantize(b(MOVES[name](s), "node"), OUT)

    after = folded(graph(before, x=SHAPE))
    assert float_ops(after) == []
    assert sources_of(after)[op_name(calls_of(after)[-1])] == "node"


@pytest.mark.parametrize(
    ("move", "axis"),
    [
        (lambda x: relax.op.permute_dims(x, [1, 0]), 0),
        (lambda x: relax.op.permute_dims(x, [1, 0]), 1),
        (lambda x: relax.op.reshape(x, (4, 2, 3)), 0),
        (lambda x: relax.op.reshape(x, (2, 2, 6)), 1),
        (lambda x: relax.op.reshape(x, (1, 4, 6)), 0),
        (lambda x: relax.op.reshape(x, (6, 4)), 0),
        (lambda x: relax.op.expand_dims(x, 0), 1),
        (lambda x: relax.op.flatten(x), 0),
        (lambda x: relax.op.strided_slice(x, [0], [0], [2]), 1),
        (lambda x: relax.op.strided_slice(x, [0], [0], [2]), 0),
        (lambda x: relax.op.strided_slice(x, [1], [5], [-7], [-1]), 1),
        (lambda x: relax.op.take(x, const(np.array([3, 2, 1, 0], np.int64)), 0), 0),
        (lambda x: relax.op.take(x, const(np.array([3, 2, 1, 0], np.int64)), 0), 1),
        (lambda x: relax.op.take(x, const(np.array([[3, 2], [1, 0]], np.int64)), 0), 1),
        (lambda x: relax.op.take(x, const(np.array(2, np.int64)), 0), 1),
        (lambda x: relax.op.flip(x, 0), 0),
        (lambda x: relax.op.broadcast_to(x, (2, 4, 6)), 1),
        (lambda x: relax.op.max(x, 0), 1),
    ],
)  # fmt: skip
def test_channels_are_followed_or_the_movement_stays_float(move: Callable, axis: int) -> None:
    scale = 2.0 ** -np.arange(3, 7 if axis == 0 else 9)
    zero_points = np.arange(scale.size)
    before = _moved(move, grid(scale, zero_points, axis=axis), grid(2**-6), ((4, 6), "float32"))
    after = folded(before)
    assert float_ops(after) == [] or reasons(after)[0][0] == "node"


def test_channels_that_move_as_a_whole_stay_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((5, 3, 1, 1), grid(2.0 ** -np.arange(5, 10), axis=0))
        c = b(relax.op.nn.conv2d(b.fake(x, X), w))
        c = b(relax.op.permute_dims(b(relax.op.reshape(c, (2, 5, 16))), [0, 2, 1]))
        return b.quantize(b(relax.op.add(c, const(np.arange(5, dtype=np.float32)))), OUT)

    after = folded(graph(before, x=((2, 3, 4, 4), "float32")))
    assert names_of(after) == [
        "qnn.quantize", "qnn.conv2d", "reshape", "permute_dims", "add", "qnn.requantize",
    ]  # fmt: skip


def test_reshape_with_a_symbolic_batch_follows_the_channels() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        n = x.ty.shape.values[0]
        w = b.weight((5, 3, 1, 1), grid(2.0 ** -np.arange(5, 10), axis=0))
        c = b(relax.op.nn.conv2d(b.fake(x, X), w))
        return b.quantize(b(relax.op.reshape(c, (n, 5, 16))), OUT)

    assert float_ops(folded(graph(before, x=(("n", 3, 4, 4), "float32")))) == []


def test_a_constant_is_moved_at_compile_time() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b(relax.op.reshape(b.weight((4, 6), grid([0.25, 0.5, 1, 2], axis=0)), (4, 6, 1, 1)))
        return b.quantize(b(relax.op.nn.conv2d(b.fake(x, X), w)), grid(1.0))

    after = folded(graph(before, x=((1, 6, 2, 2), "float32")))
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.requantize"]


@pytest.mark.parametrize("value", [0.01, -np.inf, 1e6])
def test_padding_off_the_grid_stays_float_and_says_why(value: float) -> None:
    after = folded(_moved(lambda x: relax.op.nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_value=value)))
    ((node, text),) = reasons(after)
    assert node == "node" and "padding value" in text and "does not lie on the grid" in text


def test_padding_of_a_clamped_tensor_adds_the_value_after_the_clamp() -> None:
    before = _moved(
        lambda x: relax.op.nn.pad(relax.op.clip(x, 0.5, 1), [0, 0, 0, 0, 1, 1, 1, 1], pad_value=0.0)
    )
    assert float_ops(folded(before)) == []


def test_max_pool_with_padding_of_a_clamped_tensor_never_returns_the_padding() -> None:
    before = _moved(
        lambda x: relax.op.nn.max_pool2d(relax.op.clip(x, -2, -1), (3, 3), (1, 1), (1, 1)), grid(2**-5, 100)
    )
    assert float_ops(folded(before)) == []


def test_max_pool_of_a_sum_of_products_runs_on_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        w = b.weight((4, 4, 1, 1), grid([2**-7, 2**-8, 2**-7, 2**-6], axis=0))
        c = b(relax.op.nn.max_pool2d(b(relax.op.nn.conv2d(b.fake(x, X), w)), (2, 2), (2, 2)))
        return b.quantize(c, OUT)

    assert float_ops(folded(graph(before, x=SHAPE))) == []


def test_depth_to_space_runs_on_integers() -> None:
    """Not evaluated: TVM 0.27 has no code for it."""
    after = fold_into_qnn(_moved(lambda x: relax.op.nn.pixel_shuffle(x, 2)))
    assert names_of(after) == ["qnn.quantize", "pixel_shuffle", "qnn.requantize"]


def test_resizing_that_interpolates_stays_float_and_says_why() -> None:
    after = folded(_moved(lambda x: relax.op.image.resize2d(x, (12, 12), method="linear")))
    assert reasons(after) == [("node", "image.resize2d: resizing by linear has no integer rule; use nearest")]


# ---------------------------------------------------------------- order


@pytest.mark.parametrize("op", [relax.op.argmax, relax.op.argmin])
@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("params", [X, grid(2**-5, 130, "uint8"), grid(2**-9, 3, "int16")])
def test_the_place_of_an_extreme_is_found_among_integers(op: Callable, clamp: bool, params: QParams) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, params)
        return b(op(b(relax.op.nn.relu(d)) if clamp else d, 1))

    after = folded(graph(before, x=((3, 40), "float32")))
    assert "qnn.dequantize" not in names_of(after)


def test_an_embedding_of_an_8_bit_table_is_looked_up_in_integers() -> None:
    def before(b: Graph, ids: Expr) -> Expr:
        return b.quantize(b(relax.op.take(b.weight((10, 6), X), ids, 0)), OUT)

    after = folded(graph(before, ids=(("n", 3), "int64")))
    assert names_of(after) == ["take", "qnn.requantize"]
    assert dtype_of(calls_of(after)[0].args[0]) == "int8"


def test_a_constant_that_takes_a_symbolic_shape_is_moved_at_run_time() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        wide = b(relax.op.broadcast_to(b.weight((1, 4), X), x.ty.shape))
        return b.quantize(b(relax.op.concat(Tuple([b.fake(x, X), wide]), 1)), OUT)

    assert float_ops(folded(graph(before, x=(("n", 4), "float32")))) == []


@pytest.mark.parametrize("params", [X, grid(2**-5, 130, "uint8")])
@pytest.mark.parametrize("ret_type", ["both", "values", "indices"])
def test_the_greatest_elements_are_found_among_integers(ret_type: str, params: QParams) -> None:
    def before(b: Graph, x: Expr) -> object:
        found = b(relax.op.topk(b.fake(x, params), 3, -1, ret_type, True))
        if ret_type == "both":
            return b.quantize(b(found[0]), OUT), b(found[1])
        return b.quantize(found, OUT) if ret_type == "values" else found

    after = folded(graph(before, x=((3, 8), "float32")))
    assert "qnn.dequantize" not in names_of(after)


def test_the_greatest_sums_of_products_are_found_among_integers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        logits = b(relax.op.matmul(b.fake(x, X), b.weight((8, 10), grid(2**-7))))
        return b(b(relax.op.topk(logits, 3))[1])

    assert names_of(folded(graph(before, x=((3, 8), "float32")))) == ["qnn.quantize", "qnn.dense", "topk"]


def test_the_greatest_of_sixteen_bits_are_found_in_float_and_the_note_says_why() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(b(relax.op.topk(b.fake(x, grid(2**-9, 0, "int16")), 3), "top")[1])

    assert reasons(folded(graph(before, x=((3, 8), "float32")))) == [("top", "topk: TVM cannot sort int16")]


def test_a_cast_between_float_types_keeps_the_integers() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        d = b(relax.op.astype(b.fake(x, X, dtype="float16"), "float32"))
        return b.quantize(b(relax.op.add(d, d)), OUT), b(relax.op.cumsum(d, 1))

    after = folded(graph(before, x=(SHAPE[0], "float16")))
    assert float_ops(after) == ["cumsum"]


def test_a_cast_to_integers_reads_the_real_value() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.astype(b.fake(x, X), "int32"))

    assert names_of(folded(graph(before, x=SHAPE))) == ["qnn.quantize", "qnn.dequantize", "astype"]
