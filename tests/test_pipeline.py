"""The passes in their order, on whole graphs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.graphs import Graph, calls_of, float_ops, graph, grid, names_of, relax
from tests.support.rewrite import assert_same, check_same_numbers, random_inputs, reasons
from tvm_qat import pipeline
from tvm_qat.errors import InputError
from tvm_qat.fixed_point import REQUANTIZE_ROUNDINGS
from tvm_qat.ir import Call, Expr, IRModule, TensorType, Tuple, attrs_of, bindings_of, const, op_name, tvm
from tvm_qat.qnn import build as qnn

X = grid(2**-5, 3)
W = grid(2.0 ** -np.array([7, 8, 6, 7]), axis=0)
Y = grid(2**-3, -5)
SHAPE = (("n", 3, 8, 8), "float32")


def _fake(b: Graph, x: Expr, params: object = Y) -> Expr:
    return b(qnn.fake_quantize(x, params))


def _block(b: Graph, d: Expr, seed: int) -> Expr:
    """conv -> batch norm -> relu, fake-quantized as training does."""
    channels = int(d.ty.shape.values[1])
    w = b(
        qnn.fake_quantize(
            const(np.random.default_rng(seed).uniform(-0.4, 0.4, (4, channels, 3, 3)), "float32"), W
        )
    )
    c = b(relax.op.nn.conv2d(d, w, padding=1), f"conv{seed}")
    gamma = np.array([1, 2, 0.5, 1], np.float32)
    stats = [const(v.astype(np.float32)) for v in (gamma, np.ones(4), np.zeros(4), np.full(4, 0.75))]
    c = b(b(relax.op.nn.batch_norm(c, *stats, 1, epsilon=0.25, training=True))[0], f"bn{seed}")
    return _fake(b, b(relax.op.nn.relu(c), f"relu{seed}"))


def network(batch: object = "n") -> IRModule:
    """Two blocks with a residual, a concatenation, pooling and a classifier."""

    def body(b: Graph, x: Expr) -> Expr:
        d = _fake(b, b(b(relax.op.nn.dropout(x, 0.1))[0]), X)
        first = _block(b, d, 1)
        second = _block(b, first, 2)
        s = _fake(b, b(relax.op.add(first, second), "residual"))
        c = _fake(b, b(relax.op.concat(Tuple([s, first]), 1), "cat"))
        p = _fake(b, b(relax.op.mean(b(relax.op.nn.max_pool2d(c, (2, 2), (2, 2))), [2, 3]), "gap"))
        w = b(
            qnn.fake_quantize(const(np.random.default_rng(3).normal(size=(8, 4)) / 4, "float32"), grid(2**-6))
        )
        return _fake(b, b(relax.op.add(b(relax.op.matmul(p, w), "fc"), const(np.ones(4, np.float32)))))

    return graph(body, x=((batch, *SHAPE[0][1:]), "float32"))


def _simulation(mod: IRModule) -> IRModule:
    """What training saw, with the moving statistics of its batch norms."""
    return pipeline.run(mod, until="prune_training_remnants")


@pytest.mark.parametrize("batch", [1, "n"])
def test_a_whole_network_runs_on_integers_and_keeps_its_numbers(batch: object) -> None:
    mod = network(batch)
    after = pipeline.run(mod)
    relax.analysis.well_formed(after)
    assert float_ops(after) == [] and reasons(after) == []
    check_same_numbers(_simulation(mod), after, max_steps=1, step=2**-3)


def test_the_network_becomes_one_kernel_per_layer() -> None:
    after = pipeline.run(network())
    calls = [b.value for b in bindings_of(after["main"]) if isinstance(b.value, Call)]
    main = [op_name(call) or "kernel" for call in calls]
    assert main.count("kernel") == 3 and main.count("relax.permute_dims") == 1


def test_the_pipeline_is_a_fixed_point_of_itself() -> None:
    once = pipeline.run(network())
    assert_same(pipeline.run(once), once)


@pytest.mark.parametrize("name", sorted(set(pipeline.PASSES) - pipeline.REQUIRED))
def test_any_other_pass_may_be_left_out(name: str) -> None:
    mod = network()
    after = pipeline.run(mod, disabled=[name])
    relax.analysis.well_formed(after)
    if name != "prune_training_remnants":  # then a batch norm would use the statistics of its batch
        check_same_numbers(_simulation(mod), after, max_steps=1, step=2**-3)


@pytest.mark.parametrize("name", sorted(pipeline.PASSES))
def test_stopping_after_a_pass_keeps_the_numbers(name: str) -> None:
    mod = network()
    after = pipeline.run(mod, until=name)
    relax.analysis.well_formed(after)
    check_same_numbers(_simulation(mod), after, max_steps=1, step=2**-3)


@pytest.mark.parametrize("rounding", REQUANTIZE_ROUNDINGS)
def test_every_requantize_gets_the_rounding_asked_for(rounding: str) -> None:
    after = pipeline.run(network(), rounding=rounding)
    found = {attrs_of(c)["rounding"] for c in calls_of(after) if op_name(c) == "qnn.requantize"}
    assert found == ({"tflite", "tflite_single"} if rounding == "tflite" else {rounding})  # dense rounds once


def test_passes_report_their_times_in_order() -> None:
    seen: list[str] = []
    pipeline.run(network(), disabled=["fuse"], after=lambda name, seconds: seen.append(name))
    assert seen == [name for name in pipeline.PASSES if name != "fuse"]


def test_an_unknown_pass_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"no pass is called nonsense; the passes are prune_training_remnants"
    ):
        pipeline.run(network(), disabled=["nonsense"])


@pytest.mark.parametrize("name", sorted(pipeline.REQUIRED))
def test_a_pass_that_reads_what_training_said_cannot_be_left_out(name: str) -> None:
    with pytest.raises(InputError, match=f"pass {name} cannot be disabled"):
        pipeline.run(network(), disabled=[name])


def test_shapes_known_only_at_run_time_keep_what_defines_them() -> None:
    """A match_cast may define a symbolic dimension; without it the module is not well-formed."""

    def body(b: Graph, x: Expr) -> tuple:
        d = _fake(b, x, X)
        size = tvm.tirx.Var("m", "int64")
        found = b.builder.match_cast(b(relax.op.nonzero(d)), TensorType((2, size), "int64"))
        same = b.builder.match_cast(d, TensorType((x.ty.shape.values[0], 3), "float32"))
        places = b(relax.op.reshape(found, (size, 2)))
        return places, b(qnn.quantize(b(relax.op.add(same, same)), Y))

    mod = graph(body, x=(("n", 3), "float32"))
    for name in pipeline.PASSES:
        after = pipeline.run(mod, until=name)
        relax.analysis.well_formed(after)
    assert "qnn.add" not in names_of(after)  # the cast needs the float form


def test_height_and_width_may_be_known_only_at_run_time() -> None:
    def body(b: Graph, x: Expr) -> tuple:
        d = _fake(b, x, X)
        c = _fake(
            b, b(relax.op.nn.relu(b(relax.op.nn.conv2d(d, b.weight((3, 3, 3, 3), grid(2**-7)), padding=1))))
        )
        s = _fake(b, b(relax.op.add(c, d)))
        p = _fake(b, b(relax.op.nn.max_pool2d(s, (2, 2), (2, 2))))
        q = _fake(b, b(relax.op.nn.conv2d(p, b.weight((3, 3, 1, 1), grid(2**-7)))))
        return _fake(b, b(relax.op.add(q, p))), b(relax.op.mean(p, [2, 3]), "gap")

    mod = graph(body, x=(("n", 3, "h", "w"), "float32"))
    after = pipeline.run(mod)
    relax.analysis.well_formed(after)
    check_same_numbers(mod, after, random_inputs(mod, batch=6))
    assert "qnn.conv2d" in names_of(after) and [node for node, _ in reasons(after)] == ["gap"]
