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


def _in_float(b: Graph, x: Expr, read_twice: bool) -> Any:
    """conv in float, and a residual that was quantized."""
    real = b.dequantize(x, X)
    total = b(relax.op.add(real, b.dequantize(_bias(b, _conv(b, x)), ACC)))
    return (total, b(relax.op.exp(real))) if read_twice else total


def test_a_residual_dequantized_for_this_sum_alone_is_read_as_integers() -> None:
    after = _fuse(graph(lambda b, x: _in_float(b, x, False), x=SHAPE))
    assert composites(after) == [["conv2d", "add", "dequantize", "dequantize", "add"]]


def test_a_dequantized_residual_that_others_read_stays_outside() -> None:
    after = _fuse(graph(lambda b, x: _in_float(b, x, True), x=SHAPE))
    assert ["conv2d", "add", "dequantize", "add"] in composites(after)


def _gelu(b: Graph, c: Expr) -> Expr:
    """x * (1 + erf(x / sqrt 2)) / 2, as exporters write it: the sum is dequantized on two scales."""
    inner = b(relax.op.erf(b.dequantize(c, ACC.with_(scale=ACC.scale * 0.5**0.5))))
    product = b(relax.op.multiply(b.dequantize(c, ACC), b(relax.op.add(inner, const(np.float32(1))))))
    return b(relax.op.multiply(product, const(np.float32(0.5))))


def test_readers_of_one_sum_that_lead_into_one_value_join() -> None:
    after = _fuse(graph(lambda b, x: b.quantize(_gelu(b, _bias(b, _conv(b, x))), OUT), x=SHAPE))
    (found,) = composites(after)
    assert found[:2] == ["conv2d", "add"] and found[-1] == "quantize" and len(found) == 9


def test_readers_that_need_another_tensor_or_never_meet_end_the_kernel() -> None:
    def met_by_another(b: Graph, x: Expr, y: Expr) -> Expr:
        c = _conv(b, x)
        inner = b(relax.op.multiply(b.dequantize(c, ACC), b.dequantize(y, X)))
        return b(relax.op.add(inner, b(relax.op.erf(b.dequantize(c, ACC)))))

    def never(b: Graph, x: Expr, _y: Expr) -> tuple:
        c = _conv(b, x)
        return b.dequantize(c, ACC), b(relax.op.erf(b.dequantize(c, ACC)))

    for body in (met_by_another, never):
        found = composites(_fuse(graph(body, x=SHAPE, y=SHAPE)))
        assert ["conv2d"] in found


def test_values_written_out_too_often_end_the_kernel() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        c = _conv(b, x)
        real = b.dequantize(c, ACC)
        other = b(relax.op.erf(b.dequantize(c, ACC.with_(scale=ACC.scale * 2))))
        for _ in range(6):
            real, other = b(relax.op.add(real, other)), b(relax.op.multiply(real, other))
        return b(relax.op.add(real, other))

    assert ["conv2d"] in composites(_fuse(graph(before, x=SHAPE)))


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
