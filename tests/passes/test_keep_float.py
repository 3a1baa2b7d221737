"""Nodes that the caller wants in float: only they leave the integers; the numbers are the simulation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.support.graphs import Graph, calls_of, graph, grid, names_of, relax
from tests.support.rewrite import assert_same, folded, random_inputs, reasons
from tvm_qat import pipeline
from tvm_qat.errors import InputError
from tvm_qat.ir import Expr, IRModule, const, source_of
from tvm_qat.passes.fold_batch_norm import fold_batch_norm
from tvm_qat.passes.fold_into_qnn import fold_into_qnn
from tvm_qat.passes.keep_float import keep_float
from tvm_qat.qnn import build as qnn
from tvm_qat.verification.evaluate import evaluate_module

X = grid(2**-5, 3)
W = grid(2**-7)
OUT = grid(2**-4, -5)
LAST = grid(2**-3, 1)
SHAPE = ((2, 3, 4, 4), "float32")
DEMO = Path(tvm_qat.__file__).parent / "data" / "demo" / "digits_cnn.onnx"


def _conv(b: Graph, d: Expr, name: str, seed: int = 0) -> Expr:
    return b(relax.op.nn.conv2d(d, b.weight((3, 3, 1, 1), W, seed)), name)


def _two(b: Graph, x: Expr) -> Expr:
    first = b.fake(_conv(b, b.fake(x, X), "first"), OUT, "q1")
    return b.quantize(_conv(b, first, "second", 1), LAST, "q2")


def _kept(mod: IRModule, *nodes: str, only: tuple[str, ...] = ()) -> IRModule:
    return folded(keep_float(mod, nodes, only))


def test_a_node_computes_in_float_between_the_quantization_that_training_saw():
    def expected(b: Graph, x: Expr) -> Expr:
        q = b.quantize(x, X)
        weights = np.random.default_rng(0).integers(-127, 128, (3, 3, 1, 1)).astype(np.int8)
        real = const(weights.astype(np.float32) * np.float32(2**-7))
        first = b(relax.op.nn.conv2d(b.dequantize(q, X), real))
        second = np.random.default_rng(1).integers(-127, 128, (3, 3, 1, 1)).astype(np.int8)
        sums = b(qnn.conv(b.quantize(first, OUT), const(second), -5, **PLANE))
        return b(qnn.requantize(sums, grid(2**-11, dtype="int32"), LAST))

    before = graph(_two, x=SHAPE)
    after = _kept(before, "first")
    assert_same(after, graph(expected, x=SHAPE))
    assert reasons(after) == [("first", "kept in float by request")]


PLANE = {"strides": [1, 1], "padding": [0, 0, 0, 0], "dilation": [1, 1]}


@pytest.mark.parametrize("node", ["first", "second", "[fs]*"])
def test_the_numbers_are_those_of_the_simulation_to_the_bit(node: str):
    before = graph(_two, x=SHAPE)
    inputs = random_inputs(before)
    (simulated,), (found,) = evaluate_module(before, inputs), evaluate_module(_kept(before, node), inputs)
    np.testing.assert_array_equal(found, simulated)


def test_what_is_not_named_stays_as_it_was():
    """The same integer operators, in the same order, but for the node itself."""
    before = graph(_two, x=SHAPE)
    assert names_of(folded(before)) == ["qnn.quantize", *["qnn.conv2d", "qnn.requantize"] * 2]
    assert names_of(_kept(before, "second")) == [
        "qnn.quantize", "qnn.conv2d", "qnn.requantize", "qnn.dequantize", "conv2d",
        "qnn.quantize",
    ]  # fmt: skip


def test_a_relu_that_is_kept_is_not_absorbed_into_a_range():
    def body(b: Graph, x: Expr) -> Expr:
        return b.quantize(b(relax.op.nn.relu(_conv(b, b.fake(x, X), "c")), "r"), OUT, "q")

    before = graph(body, x=SHAPE)
    after = _kept(before, "r")
    assert names_of(after) == ["qnn.quantize", "qnn.conv2d", "qnn.dequantize", "relu", "qnn.quantize"]
    inputs = random_inputs(before)
    np.testing.assert_array_equal(evaluate_module(after, inputs)[0], evaluate_module(before, inputs)[0])


def test_movement_that_is_kept_is_not_moved_past():
    def body(b: Graph, x: Expr) -> Expr:
        moved = b(relax.op.permute_dims(_conv(b, b.fake(x, X), "c"), [0, 2, 3, 1]), "t")
        return b.quantize(moved, OUT, "q")

    passed = pipeline.run(keep_float(graph(body, x=SHAPE), ["t"]), until="cancel_requantize_pairs")
    (moved,) = [call for call in calls_of(passed) if source_of(call) == "t"]
    assert str(moved.ty.dtype) == "float32"
    free = pipeline.run(graph(body, x=SHAPE), until="cancel_requantize_pairs")
    assert {str(call.ty.dtype) for call in calls_of(free) if source_of(call) == "t"} == {"int8"}


def test_a_batch_norm_that_is_kept_stays_beside_the_sum():
    ones = const(np.ones(3, np.float32))

    def body(b: Graph, x: Expr) -> Expr:
        norm = relax.op.nn.batch_norm(_conv(b, b.fake(x, X), "c"), ones, ones, ones, ones, 1, training=False)
        return b.quantize(b(b(norm, "bn")[0], "bn"), OUT, "q")

    mod = graph(body, x=SHAPE)
    kept = fold_into_qnn(fold_batch_norm(keep_float(mod, ["bn"])))
    assert {name for name, _ in reasons(kept)} == {"bn"}
    assert names_of(kept) == [
        "qnn.quantize", "qnn.conv2d", "qnn.dequantize", "multiply", "add", "qnn.quantize",
    ]  # fmt: skip
    assert "multiply" not in names_of(fold_into_qnn(fold_batch_norm(mod)))


def test_only_operators_that_are_named_run_on_integers_and_movement_follows():
    def body(b: Graph, x: Expr) -> Expr:
        first = b.fake(_conv(b, b.fake(x, X), "c"), OUT)
        flat = b.fake(b(relax.op.reshape(first, [2, 48]), "move"), OUT)
        return b.quantize(b(relax.op.sigmoid(flat), "s"), LAST, "q")

    after = _kept(graph(body, x=SHAPE), only=("conv2d",))
    assert reasons(after) == [("s", "kept in float by request")]
    assert names_of(after)[:4] == ["qnn.quantize", "qnn.conv2d", "qnn.requantize", "reshape"]


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        (["frist"], r"no node is called 'frist': did you mean first"),
        (["x*"], r"no node is called 'x\*'"),
        (["q1"], r"'q1' only changes a grid"),
    ],
)
def test_a_name_that_matches_nothing_is_refused_with_the_closest(nodes: list[str], message: str):
    with pytest.raises(InputError, match=message.replace("': did", "'.*did")):
        keep_float(graph(_two, x=SHAPE), nodes)


def test_an_operator_that_the_model_does_not_have_is_refused():
    with pytest.raises(InputError, match=r"no operator 'conv3d'.*did you mean conv2d"):
        keep_float(graph(_two, x=SHAPE), only_int8=["conv3d"])


def test_a_node_that_computes_nothing_in_float_is_refused():
    def body(b: Graph, x: Expr) -> Expr:
        return b.dequantize(b(relax.op.permute_dims(x, [1, 0]), "turn"), X, "d")

    with pytest.raises(InputError, match=r"'turn'.*computes nothing"):
        _kept(graph(body, x=((2, 3), "int8")), "turn")


@pytest.mark.parametrize(
    "target", ["llvm", pytest.param('{"kind": "llvm", "mcpu": "cascadelake"}', marks=pytest.mark.slow)]
)
@pytest.mark.parametrize(
    ("nodes", "only"),
    [
        (["block2/*", "head/pool"], []),
        pytest.param(["stem/conv"], [], marks=pytest.mark.slow),
        pytest.param([], ["Conv"], marks=pytest.mark.slow),
        pytest.param([], ["Gemm", "MaxPool"], marks=pytest.mark.slow),
    ],
)
def test_compiled_code_repeats_the_reference_whatever_is_kept(nodes: list[str], only: list[str], target: str):
    source = keep_float(tvm_qat.import_model(DEMO), nodes, only)
    inputs = random_inputs(source)
    (expected,) = evaluate_module(pipeline.run(source), inputs)
    package = tvm_qat.compile(DEMO, target, keep_float=nodes, only_int8=only)
    (found,) = package.run(inputs).values()
    np.testing.assert_array_equal(found, expected)
    named = {row["name"] for row in package.layers if row["code"] == "by-request"}
    assert (named and 0 < package.totals["int8_mac_share"] < 1) or only == ["Conv"]
