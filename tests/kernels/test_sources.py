"""Nodes keep their names through TVM's own passes, to the kernels that TVM writes."""

from __future__ import annotations

from typing import Any

from tests.kernels.harness import TARGETS
from tests.support.graphs import Graph, graph, grid
from tvm_qat.ir import Expr, IRModule, relax
from tvm_qat.kernels import TVM, chosen_kernels, finish, lower
from tvm_qat.qnn import build as qnn

PLAIN = TARGETS["plain"]


def finished(mod: IRModule) -> list[dict[str, Any]]:
    return chosen_kernels(finish(PLAIN, one_call=True)(lower(mod, PLAIN)))


def test_what_tvm_writes_itself_is_named_after_its_nodes():
    def body(g: Graph, x: Expr) -> Expr:
        both = g(relax.op.concat([x, x], axis=1), "both")
        return g(relax.op.cumsum(both, axis=1), "sums")

    rows = finished(graph(body, x=((2, 3), "int8")))
    assert {row["node"]: row["kernel"] for row in rows} == {"both": TVM, "sums": TVM}


def test_a_group_that_tvm_makes_stands_for_all_its_calls():
    def body(g: Graph, x: Expr) -> Expr:
        turned = g(relax.op.reshape(x, [3, 2]), "first")
        return g(relax.op.astype(turned, "int32"), "second")

    mod = graph(body, x=((2, 3), "int8"))
    (row,) = finished(mod)
    assert (row["node"], row["places"]) == ("second", (0, 1))


def test_a_view_has_no_kernel():
    def body(g: Graph, x: Expr) -> Expr:
        scaled = g(qnn.requantize(x, grid(), grid(2.0**-3)), "scaled")
        return g(qnn.requantize(g(relax.op.reshape(scaled, [6]), "view"), grid(), grid(2.0**-4)), "again")

    rows = finished(graph(body, x=((2, 3), "int8")))
    assert sorted(row["node"] for row in rows) == ["again", "scaled"]


def test_equal_islands_are_named_after_their_own_nodes():
    """Builders join equal functions; the kernel is shared, the names are not."""

    def body(g: Graph, x: Expr) -> Expr:
        once = g(relax.op.permute_dims(x, [1, 0]), "once")
        summed = g(relax.op.cumsum(once, axis=0), "between")
        return g(relax.op.permute_dims(g(relax.op.reshape(summed, [2, 3]), "view"), [1, 0]), "twice")

    rows = finished(graph(body, x=((2, 3), "float32")))
    ours = [row for row in rows if row["kernel"] != TVM]
    assert [row["node"] for row in ours] == ["once", "twice"]
    assert len({row["function"] for row in ours}) == 1
