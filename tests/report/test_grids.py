"""Every integer tensor of a folded module is shown on the grid that the model gave it."""

from __future__ import annotations

import numpy as np

from tests.support.graphs import Graph, graph, grid, relax
from tvm_qat import pipeline
from tvm_qat.ir import Expr, IRModule
from tvm_qat.qparams import QParams
from tvm_qat.report import Layer, report_of

X = grid(2**-5, 3)
W = grid(2.0 ** -np.arange(3, 7), 0, axis=0)
MID = grid(2**-4, -5)
OUT = grid(2**-3, 7, "uint8")
SHAPE = ((1, 3, 4, 4), "float32")


def rows(mod: IRModule) -> dict[str, Layer]:
    return {layer.name: layer for layer in report_of(pipeline.run(mod), mod).layers}


def _grids(tensors: object) -> list[QParams | None]:
    return [tensor.qparams for tensor in tensors]


def _conv(b: Graph, x: Expr, name: str) -> Expr:
    return b(relax.op.nn.conv2d(x, b.weight((4, 3, 1, 1), W)), name)


def test_the_operands_and_the_result_of_a_product():
    def body(b: Graph, x: Expr) -> Expr:
        return b.dequantize(b.quantize(_conv(b, b.fake(x, X, "in"), "c"), OUT), OUT, "out")

    found = rows(graph(body, x=SHAPE))["c"]
    assert _grids(found.inputs) == [X]
    assert _grids(found.weights)[0] == W
    assert _grids(found.outputs) == [OUT]


def test_a_table_between_products():
    def body(b: Graph, x: Expr) -> Expr:
        first = b.fake(_conv(b, b.fake(x, X, "in"), "c"), MID)
        return b.dequantize(b.quantize(b(relax.op.sigmoid(first), "s"), OUT), OUT, "out")

    found = rows(graph(body, x=SHAPE))["s"]
    assert found.op == "qnn.lut"
    assert (_grids(found.inputs), _grids(found.outputs)) == ([MID], [OUT])


def test_a_table_whose_result_goes_to_a_product():
    """Neither says a scale; only folding knew it."""

    def body(b: Graph, x: Expr) -> Expr:
        table = b.fake(b(relax.op.tanh(b.dequantize(x, X)), "t"), MID)
        return b.quantize(_conv(b, table, "c"), OUT)

    found = rows(graph(body, x=(SHAPE[0], "int8")))
    assert (_grids(found["t"].inputs), _grids(found["t"].outputs)) == ([X], [MID])
    assert _grids(found["c"].inputs) == [MID]


def test_movement_passes_a_grid_on():
    def body(b: Graph, x: Expr) -> Expr:
        pooled = b(relax.op.nn.max_pool2d(b.fake(x, X, "in"), (2, 2), (2, 2)), "p")
        return b.dequantize(b.quantize(b(relax.op.reshape(pooled, [1, 12]), "r"), X), X, "out")

    found = rows(graph(body, x=SHAPE))
    assert _grids(found["p"].outputs) == _grids(found["r"].inputs) == _grids(found["r"].outputs) == [X]


def test_sums_per_channel_follow_their_axis_through_a_transposition():
    def body(b: Graph, x: Expr) -> Expr:
        sums = _conv(b, b.fake(x, X, "in"), "c")
        return b(relax.op.cumsum(b(relax.op.permute_dims(sums, [0, 2, 3, 1]), "t"), axis=1), "float")

    found = rows(graph(body, x=SHAPE))
    (sums,) = [t for row in found.values() for t in row.inputs if t.dtype == "int32"][:1]
    assert sums.qparams is not None and sums.shape[sums.qparams.axis] == 4
    np.testing.assert_array_equal(sums.qparams.scale, W.scale * X.scale)


def test_floats_have_no_grid():
    def body(b: Graph, x: Expr) -> Expr:
        return b(relax.op.nn.relu(b.fake(x, X, "in")), "r")

    found = rows(graph(body, x=SHAPE))["r"]
    assert _grids(found.inputs) == [None] == _grids(found.outputs)
