"""What only training needed is removed, and each removal is noted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.support.graphs import Graph, graph, names_of, relax
from tests.support.rewrite import check_rewrite, check_unchanged, reasons
from tvm_qat.ir import Expr, Tuple, attrs_of, bindings_of, const, op_name
from tvm_qat.passes.prune_training_remnants import prune_training_remnants

SHAPE = (("n", 3, 4, 4), "float32")


def _same_reshape(b: Graph, x: Expr) -> Expr:
    return relax.op.reshape(x, x.ty.shape)


NOTHING: dict[str, Callable[[Graph, Expr], Expr]] = {
    "relax.nn.dropout": lambda b, x: b(relax.op.nn.dropout(x, 0.5), "gone")[0],
    "relax.astype": lambda b, x: relax.op.astype(x, "float32"),
    "relax.reshape": _same_reshape,
    "relax.permute_dims": lambda b, x: relax.op.permute_dims(x, [0, 1, 2, 3]),
    "relax.concat": lambda b, x: relax.op.concat(Tuple([x]), 1),
    "relax.clip": lambda b, x: relax.op.clip(x, -np.inf, np.inf),
    "relax.grad.no_grad": lambda b, x: relax.op.grad.no_grad(x),
}


@pytest.mark.parametrize("name", NOTHING)
def test_an_operator_that_computes_nothing_is_removed_and_noted(name: str) -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.nn.relu(b(NOTHING[name](b, x), "gone")), "kept")

    def expected(b: Graph, x: Expr) -> Expr:
        return b(relax.op.nn.relu(x), "kept")

    after = check_rewrite(prune_training_remnants, graph(before, x=SHAPE), graph(expected, x=SHAPE))
    assert reasons(after, "pruned") == [("gone", name)]


def test_a_removed_operator_at_the_end_leaves_its_input_as_the_output() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        return b(relax.op.astype(b(relax.op.nn.relu(x)), "float32"))

    after = prune_training_remnants(graph(before, x=SHAPE))
    assert names_of(after) == ["relu"]


def test_a_batch_norm_in_training_mode_uses_its_moving_statistics() -> None:
    def body(training: bool) -> Callable:
        def norm(b: Graph, x: Expr) -> Expr:
            ones = const(np.ones(3, np.float32))
            return b(b(relax.op.nn.batch_norm(x, ones, ones, ones, ones, 1, training=training))[0])

        return norm

    check_rewrite(prune_training_remnants, graph(body(True), x=SHAPE), graph(body(False), x=SHAPE))


def test_a_dropout_mask_that_is_read_is_kept() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        return b(b(relax.op.nn.dropout(x, 0.5))[1])

    after = prune_training_remnants(graph(body, x=SHAPE))
    assert "dropout" in names_of(after)


@pytest.mark.parametrize(
    "op",
    [
        lambda x: relax.op.astype(x, "float16"),
        lambda x: relax.op.reshape(x, (x.ty.shape.values[0], 48)),
        lambda x: relax.op.permute_dims(x, [0, 1, 3, 2]),
        lambda x: relax.op.permute_dims(x),
        lambda x: relax.op.concat(Tuple([x, x]), 1),
        lambda x: relax.op.clip(x, 0, np.inf),
    ],
)
def test_an_operator_that_computes_something_is_kept(op: Callable) -> None:
    check_unchanged(prune_training_remnants, graph(lambda b, x: b(op(x)), x=SHAPE))


def test_equal_products_of_other_symbolic_sizes_are_no_proof_of_equal_shapes() -> None:
    def body(b: Graph, x: Expr, y: Expr) -> Expr:
        return b(relax.op.reshape(x, y.ty.shape))

    check_unchanged(
        prune_training_remnants, graph(body, x=(("n", "m"), "float32"), y=(("m", "n"), "float32"))
    )


def test_the_attributes_of_a_norm_survive() -> None:
    def body(b: Graph, x: Expr) -> Expr:
        ones = const(np.ones(3, np.float32))
        norm = relax.op.nn.batch_norm(x, ones, ones, ones, ones, 1, 0.125, center=False, training=True)
        return b(b(norm)[0])

    after = prune_training_remnants(graph(body, x=SHAPE))
    (call,) = [b.value for b in bindings_of(after["main"]) if op_name(b.value) == "relax.nn.batch_norm"]
    attrs = attrs_of(call)
    assert (attrs["epsilon"], attrs["center"], attrs["training"]) == (0.125, False, False)


def test_two_in_a_row_are_both_removed() -> None:
    def before(b: Graph, x: Expr) -> Expr:
        d = b(b(relax.op.nn.dropout(x, 0.5))[0])
        return b(relax.op.nn.relu(b(relax.op.reshape(b(relax.op.astype(d, "float32")), x.ty.shape))))

    assert names_of(prune_training_remnants(graph(before, x=SHAPE))) == ["relu"]
