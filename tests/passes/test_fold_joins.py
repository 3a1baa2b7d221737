"""Splitting, joining and choosing between quantized tensors."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import check_same_numbers, folded, reasons
from tvm_qat.ir import Expr, IRModule, Tuple, const
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.qparams import QParams

X = grid(2**-5, 3)
OUT = grid(2**-4, -5)
SHAPE = ((2, 4, 6, 6), "float32")


def test_the_parts_of_a_split_are_quantized_on_their_own() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        parts = b(relax.op.split(b.fake(x, X), 2, 1), "split")
        return b.quantize(b(parts[0]), OUT), b.quantize(b(relax.op.nn.relu(b(parts[1]))), X)

    assert float_ops(folded(graph(before, x=SHAPE))) == []


def test_a_split_at_given_places_keeps_its_numbers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        parts = b(relax.op.split(b.fake(x, X), [1, 3], 1))
        return b.quantize(b(parts[1]), OUT)

    assert float_ops(folded(graph(before, x=SHAPE))) == []


def _concat(left: QParams, right: QParams, out: QParams = OUT, axis: int = 1) -> IRModule:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        parts = Tuple([b.fake(x, left), b.fake(y, right)])
        return b.quantize(b(relax.op.concat(parts, axis), "cat"), out)

    return graph(before, x=SHAPE, y=SHAPE)


def test_parts_on_one_grid_are_joined_as_they_are() -> None:
    after = folded(_concat(X, X, X))
    assert names_of(after) == ["qnn.quantize", "qnn.quantize", "concat"]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_parts_on_different_grids_are_brought_to_the_results(axis: int) -> None:
    after = folded(_concat(X, grid(2**-6, 99, "uint8"), axis=axis))
    assert names_of(after)[-1] == "qnn.concatenate"


def test_clamped_constant_and_pending_parts_keep_their_numbers() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b.fake(x, X)
        parts = [d, b(relax.op.nn.relu(d)), b(relax.op.clip(d, -0.3, 0.7)), b(relax.op.add(d, d))]
        parts.append(const(np.full((2, 1, 6, 6), 0.8, np.float32)))
        return b.quantize(b(relax.op.concat(Tuple(parts), 1)), OUT)

    assert float_ops(folded(graph(before, x=SHAPE))) == []


def test_a_clamp_on_a_concatenation_is_kept() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        parts = Tuple([b.fake(x, X), b(relax.op.nn.relu(b.fake(y, OUT)))])
        return b.quantize(b(relax.op.clip(b(relax.op.concat(parts, 1)), -0.5, 0.6)), OUT)

    assert float_ops(folded(graph(before, x=SHAPE, y=SHAPE))) == []


def test_a_float_part_makes_one_island_with_a_reason() -> None:
    def before(b: Graph, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.concat(Tuple([b.fake(x, X), y]), 1), "cat"), OUT)

    after = folded(graph(before, x=SHAPE, y=SHAPE))
    assert reasons(after) == [("cat", "concat: one of its parts is not quantized")]


def test_joined_sums_of_products_guard_their_bias_by_the_greater_bound() -> None:
    """The bias fits the first part's accumulator, but not the second's."""
    small, large = np.ones((1, 4, 1, 1), np.int8), np.full((1, 4, 1, 1), 127, np.int8)
    wide = grid(2.0**-5, 0, "int16")

    def before(b: Graph, x: Expr) -> Expr:
        d, w = b.fake(x, wide), grid(1.0)
        sums = [b(relax.op.nn.conv2d(d, b.dequantize(const(k), w))) for k in (small, large)]
        c = b(relax.op.concat(Tuple(sums), 1))
        return b.quantize(b(relax.op.add(c, const(np.float32((2**31 - 2**20) / 32)))), grid(2.0**20))

    before_mod = graph(before, x=SHAPE)
    after = fold_into_qnn(before_mod)
    top = np.full(SHAPE[0], 1023, np.float32)
    check_same_numbers(before_mod, after, [top])


def test_a_concatenation_of_integers_is_nobodys_business() -> None:
    def before(b: Graph, x: Expr) -> tuple:
        shape = b(relax.op.concat(Tuple([const(np.array([1], np.int64)), const(np.array([2], np.int64))])))
        return b.fake(x, X), shape

    assert reasons(folded(graph(before, x=SHAPE))) == []


def test_a_choice_between_tensors_on_one_grid_runs_on_integers() -> None:
    def before(b: Graph, c: Expr, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.where(c, b.fake(x, X), b.fake(y, X))), OUT)

    assert float_ops(folded(graph(before, c=(SHAPE[0], "bool"), x=SHAPE, y=SHAPE))) == []


def test_a_choice_between_different_grids_stays_float_and_says_why() -> None:
    def before(b: Graph, c: Expr, x: Expr, y: Expr) -> Expr:
        return b.quantize(b(relax.op.where(c, b.fake(x, X), b.fake(y, OUT)), "pick"), OUT)

    after = folded(graph(before, c=(SHAPE[0], "bool"), x=SHAPE, y=SHAPE))
    assert reasons(after) == [("pick", "where: its branches are quantized differently")]
