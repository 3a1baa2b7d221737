"""Encodings of folded weights on a model that still has its batch norms."""

from __future__ import annotations

import numpy as np
import pytest

from tests.importers.encodings.aimet import asymmetric, differences, document, of_weight, simulated, written
from tests.support.onnx_models import model, node
from tests.support.run import imported, random_inputs, simulate
from tvm_qat.ir import bindings_of, op_name

RNG = np.random.default_rng(8)
WEIGHTS = {"Conv": ((6, 4, 3, 3), 0), "ConvTranspose": ((4, 6, 3, 3), 1), "Gemm": ((6, 4), 0)}
NORM = {
    "bn.weight": RNG.uniform(0.2, 5, 6) * np.array([1, -1, 1, 1, -1, 1]),
    "bn.bias": RNG.normal(0, 1, 6),
    "bn.mean": RNG.normal(0, 1, 6),
    "bn.var": RNG.uniform(0.3, 9, 6),
}


def networks(kind, bias):
    """(the model as it is, what AIMET folds it to)."""
    shape, axis = WEIGHTS[kind]
    w, b = RNG.normal(0, 0.4, shape).astype(np.float32), RNG.normal(0, 1, 6).astype(np.float32)
    constants = {"l.weight": w} | ({"l.bias": b} if bias else {})
    constants |= {name: values.astype(np.float32) for name, values in NORM.items()}
    attrs = {"transB": 1} if kind == "Gemm" else {}
    data = {"x": (8, 4) if kind == "Gemm" else (8, 4, 6, 6)}
    layer = node(kind, " ".join(["x", *list(constants)[: 1 + bias]]), "c", "layer", **attrs)
    norm = node("BatchNormalization", "c bn.weight bn.bias bn.mean bn.var", "n", "norm")
    whole = model([layer, norm, node("Relu", "n", "y", "relu")], data, ["y"], constants, opset=15)
    factor = NORM["bn.weight"] / np.sqrt(NORM["bn.var"] + 1e-5)
    folded = w * factor.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    shift = ((b if bias else 0) - NORM["bn.mean"]) * factor + NORM["bn.bias"]
    changed = {"l.weight": folded.astype(np.float32), "l.bias": shift.astype(np.float32)}
    layer = node(kind, "x l.weight l.bias", "n", "layer", **attrs)
    return (
        whole,
        model([layer, node("Relu", "n", "y", "relu")], data, ["y"], changed, opset=15),
        changed,
        axis,
    )


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", WEIGHTS)
@pytest.mark.parametrize("channels", [True, False])
def test_batch_norms_that_the_encodings_do_not_know_are_folded_first(kind, bias, channels, tmp_path):
    whole, folded, changed, axis = networks(kind, bias)
    grids = {
        "x": asymmetric(-4.0, 4.0), "y": asymmetric(0.0, 12.0),
        "l.weight": of_weight(changed["l.weight"], axis if channels else None),
    }  # fmt: skip
    path = written(tmp_path, document("0.6.1", grids))
    inputs = random_inputs(whole)
    expected = simulated(folded, grids, inputs)["y"]
    found = simulate(whole, inputs, encodings=path)["y"]
    step, share = differences(found, expected, grids["y"].scale)
    assert step <= 1 and share < 0.01
    assert "relax.nn.batch_norm" not in [
        op_name(b.value) for b in bindings_of(imported(whole, encodings=path)["main"])
    ]


def test_the_bias_that_folding_makes_has_the_name_that_torch_gives_it(tmp_path):
    whole, _folded, changed, axis = networks("Conv", False)
    grids = {"l.weight": of_weight(changed["l.weight"], axis), "l.bias": of_weight(changed["l.bias"], 0, 16)}
    imported(whole, encodings=written(tmp_path, document("1.0.0", grids)))


@pytest.mark.parametrize("known", ["c", "bn.weight"])
def test_a_batch_norm_that_the_encodings_know_is_kept(known, tmp_path):
    whole, _folded, changed, axis = networks("Conv", True)
    grids = {"x": asymmetric(-4.0, 4.0), "l.weight": of_weight(changed["l.weight"], axis)}
    grids[known] = asymmetric(-20.0, 20.0) if known == "c" else of_weight(NORM["bn.weight"], None)
    inputs = random_inputs(whole)
    path = written(tmp_path, document("0.6.1", grids))
    expected, found = simulated(whole, grids, inputs)["y"], simulate(whole, inputs, encodings=path)["y"]
    assert differences(found, expected, (0.16,))[0] <= 1


def test_encodings_that_fit_the_weight_as_it_is_leave_the_batch_norm_to_the_passes(tmp_path):
    whole, _folded, _changed, _axis = networks("Conv", True)
    weight = next(t for t in whole.graph.initializer if t.name == "l.weight")
    values = np.frombuffer(weight.raw_data, np.float32).reshape(6, 4, 3, 3)
    grids = {"x": asymmetric(-4.0, 4.0), "l.weight": of_weight(values, 0), "y": asymmetric(0.0, 12.0)}
    path = written(tmp_path, document("0.6.1", grids))
    inputs = random_inputs(whole)
    expected, found = simulated(whole, grids, inputs)["y"], simulate(whole, inputs, encodings=path)["y"]
    assert differences(found, expected, grids["y"].scale)[0] <= 1
    assert "relax.nn.batch_norm" in [
        op_name(b.value) for b in bindings_of(imported(whole, encodings=path)["main"])
    ]
