"""A sum of products and what follows it become one kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.support.graphs import Graph, graph, grid, names_of, relax
from tests.support.rewrite import check_same_numbers, check_sound, check_unchanged
from tvm_qat.ir import Call, Expr, IRModule, Tuple, bindings_of, const, op_name, source_of, tvm
from tvm_qat.passes.fuse import fuse
from tvm_qat.qnn import build as qnn

X = grid(2**-5, 3)
OUT = grid(2**-4, -5)
ACC = grid(2.0**-12, 0, "int32")
SHAPE = (("n", 4, 6, 3), "int8")
WINDOW = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}


def _conv(b: Graph, q: Expr, seed: int = 0, name: str | None = "conv") -> Expr:
    kernel = np.random.default_rng(seed).integers(-127, 127, (3, 3, 3, 3)).astype(np.int8)
    return b(qnn.conv(q, const(kernel), 3, **WINDOW, data_layout="NHWC", kernel_layout="OHWI"), name)


def _rescale(b: Graph, c: Expr, name: str | None = "rescale") -> Expr:
    return b(qnn.requantize(c, ACC, OUT), name)


def _bias(b: Graph, c: Expr) -> Expr:
    return b(relax.op.add(c, const(np.arange(3, dtype=np.int32))), "bias")


def _fuse(before: IRModule) -> IRModule:
    after = fuse(before)
    check_sound(fuse, after)
    check_same_numbers(before, after)
    assert sorted(names_of(after)) == sorted(names_of(before))
    return after


def composites(mod: IRModule) -> list[list[str]]:
    """The operators of each composite function that main calls, in order; loose calls alone."""
    found = []
    for binding in bindings_of(mod["main"]):
        value = binding.value
        if not isinstance(value, Call):
            continue
        if isinstance(value.op, tvm.ir.GlobalVar):
            inner = mod[value.op]
            assert inner.attrs["Composite"] == "qnn.fused"
            found.append([op_name(b.value).rpartition(".")[2] for b in bindings_of(inner)])
        else:
            found.append([op_name(value).rpartition(".")[2]])
    return found


def test_sum_bias_and_requantize_become_one_kernel() -> None:
    after = _fuse(graph(lambda b, x: _rescale(b, _bias(b, _conv(b, x))), x=SHAPE))
    assert composites(after) == [["conv2d", "add", "requantize"]]


def test_the_kernel_keeps_the_names_of_its_nodes() -> None:
    after = _fuse(graph(lambda b, x: _rescale(b, _bias(b, _conv(b, x))), x=SHAPE))
    (call,) = [b.value for b in bindings_of(after["main"]) if isinstance(b.value, Call)]
    inner = [source_of(b.value) for b in bindings_of(after[call.op])]
    assert source_of(call) == "rescale" and inner == ["conv", "bias", "rescale"]


def test_constants_stay_inside_and_activations_are_parameters() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.elementwise("add", _rescale(b, _conv(b, x)), y, OUT, X, OUT))

    after = _fuse(graph(before, x=SHAPE, y=SHAPE))
    assert composites(after) == [["conv2d", "requantize", "add"]]
    (call,) = [b.value for b in bindings_of(after["main"]) if isinstance(b.value, Call)]
    assert len(call.args) == 2 and len(after[call.op].params) == 2


def test_a_residual_that_is_defined_later_joins_by_the_other_branch() -> None:
    """conv1, conv2, requantize1, requantize2, add: the add can follow only one of them."""

    def before(b: Graph, x: Expr) -> Expr:
        first, second = _conv(b, x), _conv(b, x, 1)
        left = _rescale(b, first)
        right = _rescale(b, second)
        return b(qnn.elementwise("add", left, right, OUT, OUT, X))

    after = _fuse(graph(before, x=SHAPE))
    assert sorted(composites(after)) == [["conv2d", "requantize"], ["conv2d", "requantize", "add"]]


def test_the_input_of_the_sum_may_be_its_residual() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        q = _rescale(b, _conv(b, x))
        s = b(qnn.elementwise("add", _rescale(b, _conv(b, q, 1)), q, OUT, OUT, OUT))
        return b(qnn.elementwise("add", _rescale(b, _conv(b, s, 2)), s, OUT, OUT, OUT))

    after = _fuse(graph(before, x=SHAPE))
    assert composites(after) == [["conv2d", "requantize"], *[["conv2d", "requantize", "add"]] * 2]


def test_a_result_added_to_itself_ends_the_kernel() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        q = _rescale(b, _conv(b, x))
        return b(qnn.elementwise("add", q, q, OUT, OUT, X))

    assert composites(_fuse(graph(before, x=SHAPE))) == [["conv2d", "requantize"], ["add"]]


def test_a_result_that_is_read_twice_ends_the_kernel() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        q = _rescale(b, _conv(b, x))
        return b(qnn.dequantize(q, OUT)), b(relax.op.flip(q, 1))

    assert composites(_fuse(graph(before, x=SHAPE)))[0] == ["conv2d", "requantize"]


def test_an_accumulator_that_is_an_output_too_ends_the_kernel() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        c = _conv(b, x)
        return c, _rescale(b, c)

    assert composites(_fuse(graph(before, x=SHAPE))) == [["conv2d"], ["requantize"]]


FOLLOWERS: dict[str, Callable[[Expr], Any]] = {
    "dequantize": lambda q: qnn.dequantize(q, OUT),
    "lut": lambda q: qnn.lut(q, np.arange(256).astype(np.uint8)),
    "clip": lambda q: relax.op.clip(q, -3, 9),
    "maximum": lambda q: relax.op.maximum(q, const(np.int8(3))),
    "multiply": lambda q: qnn.elementwise("multiply", q, const(np.int8(3)), OUT, X, OUT),
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_what_works_value_by_value_joins(name: str) -> None:
    after = _fuse(graph(lambda b, x: b(FOLLOWERS[name](_rescale(b, _conv(b, x)))), x=SHAPE))
    assert composites(after) == [["conv2d", "requantize", name]]


ENDS: dict[str, Callable[[Expr], Any]] = {
    "movement": lambda q: relax.op.permute_dims(q, [0, 3, 1, 2]),
    "reduction": lambda q: qnn.mean(q, OUT, X, [1, 2], True),
    "pooling": lambda q: relax.op.nn.max_pool2d(q, (2, 2), layout="NHWC"),
    "concatenation": lambda q: relax.op.concat(Tuple([q, q]), 3),
    "broadcast to a larger shape": lambda q: relax.op.add(q, const(np.ones((2, 1, 1, 1, 1), np.int8))),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_changes_the_shape_or_the_order_ends_the_kernel(name: str) -> None:
    after = _fuse(graph(lambda b, x: b(ENDS[name](_rescale(b, _conv(b, x)))), x=SHAPE))
    assert composites(after)[0] == ["conv2d", "requantize"] and len(composites(after)) == 2


def test_an_operand_of_another_shape_ends_the_kernel() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.elementwise("add", _rescale(b, _conv(b, x)), y, OUT, X, OUT))

    after = _fuse(graph(before, x=SHAPE, y=((3,), "int8")))
    assert composites(after) == [["conv2d", "requantize"], ["add"]]


def test_a_residual_of_another_batch_ends_the_kernel() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(qnn.elementwise("add", _rescale(b, _conv(b, x)), y, OUT, X, OUT))

    mod = graph(before, x=((2, 4, 6, 3), "int8"), y=((1, 4, 6, 3), "int8"))
    assert composites(_fuse(mod)) == [["conv2d", "requantize"], ["add"]]


@pytest.mark.parametrize("shape", [(2, 5), ("n", 5), ("n", 3, 5)])
def test_dense_and_batch_matmul_are_kernels_too(shape: tuple) -> None:
    def dense(b: Graph, x: Expr) -> Expr:
        return _rescale(b, _bias(b, b(qnn.dense(x, const(np.ones((3, 5), np.int8)), 3))))

    def product(b: Graph, x: Expr, y: Expr) -> Expr:
        return _rescale(b, b(qnn.batch_matmul(x, y, 3, 1)))

    assert composites(_fuse(graph(dense, x=(shape, "int8")))) == [["dense", "add", "requantize"]]
    mod = graph(product, x=(shape, "int8"), y=((5, 4), "int8"))
    assert composites(_fuse(mod)) == [["batch_matmul", "requantize"]]


def test_a_lone_operator_stays_loose() -> None:
    check_unchanged(fuse, graph(lambda b, x: _conv(b, x), x=SHAPE))
    check_unchanged(fuse, graph(lambda b, x: b(qnn.requantize(x, X, OUT)), x=SHAPE))
    check_unchanged(fuse, graph(lambda b, x: b(relax.op.nn.relu(x)), x=(SHAPE[0], "float32")))


def test_equal_kernels_keep_their_own_functions_or_share_one() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> tuple:
        return _rescale(b, _conv(b, x)), _rescale(b, _conv(b, y))

    assert composites(_fuse(graph(before, x=SHAPE, y=SHAPE))) == [["conv2d", "requantize"]] * 2


def test_the_kernel_owns_its_symbolic_dimensions() -> None:
    """A dimension of its parameters may be an expression, such as h // 2, that nothing inside defines."""

    def before(b: Graph, x: Expr) -> Expr:
        p = b(relax.op.nn.max_pool2d(x, (2, 2), (2, 2), layout="NHWC"))
        return b(qnn.elementwise("add", _rescale(b, _conv(b, p)), p, OUT, X, OUT))

    mod = graph(before, x=(("n", "h", "w", 3), "int8"))
    after = fuse(mod)
    check_sound(fuse, after)
    check_same_numbers(mod, after, [np.arange(2 * 6 * 4 * 3, dtype=np.int8).reshape(2, 6, 4, 3)])
    assert composites(after) == [["max_pool2d"], ["conv2d", "requantize", "add"]]
