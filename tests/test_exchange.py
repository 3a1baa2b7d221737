"""Quantization parameters out of models and back onto float models."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

import tvm_qat as tq
from tests.importers.encodings.aimet import asymmetric, document, of_weight, symmetric, written
from tests.importers.encodings.networks import NETWORKS
from tests.support.corpus import CORPUS, needs_corpus
from tests.support.graphs import graph
from tests.support.onnx_models import f32, model, ms, node
from tests.support.run import imported, random_inputs, simulate
from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.encodings import read_encodings
from tvm_qat.importers.encodings.write import encodings_document
from tvm_qat.ir import relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

DEMO = Path(__file__).parents[1] / "tvm_qat" / "data" / "demo"


def by_name(content):
    return {entry["name"]: entry for entry in content["encodings"]}


@pytest.mark.parametrize("name", [pytest.param("digits_cnn", marks=pytest.mark.slow), "digits_mlp"])
def test_a_model_is_its_float_model_with_its_parameters(name, tmp_path):
    path = DEMO / f"{name}.onnx"
    exported = tq.export_qparams(path)
    made = tq.export_float_model(path)
    onnx.checker.check_model(made)
    assert not {n.op_type for n in made.graph.node} & {"QuantizeLinear", "DequantizeLinear"}
    encodings = written(tmp_path, exported)
    assert by_name(tq.export_qparams(made, encodings=encodings)) == by_name(exported)
    one, other = tq.compile(path), tq.compile(made, encodings=encodings)
    data = one.random_inputs(unknown=5)
    for key, value in one.run(data).items():
        np.testing.assert_array_equal(other.run(data)[key], value)
    assert other.totals["int8_mac_share"] == 1.0


@pytest.mark.corpus
@needs_corpus
def test_a_tflite_model_gives_its_tensors_with_their_own_names():
    entries = by_name(tq.export_qparams(CORPUS / "mlperf_tiny" / "kws_ref_model.tflite"))
    assert "input_1" in entries and not [name for name in entries if "/constant_" in name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("version", ["0.6.1", "1.0.0", "2.0.0"])
def test_any_version_becomes_version_2_with_the_same_bits(name, version, tmp_path):
    network = NETWORKS[name](2)
    grids = network.grids(strict=True, like="symmetric") if version == "1.0.0" else network.grids()
    inputs = random_inputs(network.model, seed=2)
    first = written(tmp_path, document(version, grids))
    expected = simulate(network.model, inputs, encodings=first)
    exported = tq.export_qparams(network.model, encodings=first)
    assert set(by_name(exported)) == set(grids)
    again = written(tmp_path, exported)
    assert tq.export_qparams(network.model, encodings=again) == exported
    for key, value in simulate(network.model, inputs, encodings=again).items():
        np.testing.assert_array_equal(value, expected[key])


GRIDS = [
    QParams(0.1, 3, "uint8"),
    QParams(1 / 3, 0, "int8", None, -127, 127),
    QParams(0.1, 0, "int8", None, -8, 7),
    QParams(0.1, 2, "uint8", None, 0, 15),
    QParams(0.1, 0, "int16", None, -8, 7),
    QParams(0.1, 5, "uint8", None, 1, 255),
    QParams(0.1, -9, "int16"),
    QParams(0.1, 40000, "uint16"),
    QParams(np.float64(np.float32(0.1)) * np.float32(0.3), 0, "int32"),
    QParams([0.1, 0.2, 1e-30], 0, "int8", 2),
    QParams([0.1, 0.2], [3, -4], "int8", 0),
    QParams(0.5, [3, -4], "int8", -1),
]


@pytest.mark.parametrize("rounding", ["half_even", "reciprocal_half_even", "nudged_range"])
@pytest.mark.parametrize("params", GRIDS, ids=str)
def test_every_grid_survives_the_file(params, rounding, tmp_path):
    path = written(tmp_path, encodings_document({"x": (params, rounding)}))
    found = read_encodings(path).entries["x"]
    read = found.params if found.axis is None else found.params.with_(axis=found.axis)
    assert read == params
    assert found.rounding == rounding


def test_only_what_aimet_cannot_say_is_added_to_its_schema():
    plain = encodings_document({"x": (QParams(0.1, 3, "uint8"), "half_even")})["encodings"][0]
    assert plain == {"name": "x", "output_dtype": "uint8", "y_scale": 0.1, "y_zero_point": 3}
    narrow = encodings_document({"x": (GRIDS[1], "half_up")})["encodings"][0]
    assert narrow["qmin"] == -127 and narrow["qmax"] == 127 and narrow["rounding"] == "half_up"


def test_a_module_of_any_producer(tmp_path):
    def body(g, x):
        fake = g(build.fake_quantize(x, QParams(0.1, 3, "uint8"), "reciprocal_half_even"), "fq")
        wide = g(build.fake_quantize_range(g(relax.op.nn.relu(fake), "relu"), -1.0, 3.0), "range")
        chain = g(relax.op.divide(g(relax.op.negative(wide), "neg"), relax.const(0.5)), "div")
        rounded = g(relax.op.clip(g(relax.op.round(chain), "round"), -8, 7), "clip")
        return g(relax.op.multiply(rounded, relax.const(0.5)), "mul")

    found = by_name(tq.export_qparams(graph(body, x=((2, 3), "float32"))))
    assert list(found) == ["x", "relu", "neg"]
    assert found["x"]["rounding"] == "reciprocal_half_even"
    assert found["relu"]["rounding"] == "nudged_range"
    assert found["neg"] == {"name": "neg", "output_dtype": "int4", "y_scale": 0.5}


def qdq(extra=(), outputs=("y",), **changes):
    """conv of a quantized input, per-channel weight and 32-bit bias; its result quantized."""
    rng = np.random.default_rng(4)
    constants = {
        "sx": f32(0.05), "zx": np.uint8(100), "w": rng.integers(-127, 128, (4, 3, 1, 1)).astype(np.int8),
        "sw": rng.uniform(0.01, 0.1, 4).astype(np.float32), "zw": np.zeros(4, np.int8),
        "b": rng.integers(-999, 999, 4).astype(np.int32), "sb": f32(*rng.uniform(0.01, 0.1, 4)),
        "zb": np.zeros(4, np.int32), "sy": f32(0.1), "zy": np.int8(-3), **changes,
    }  # fmt: skip
    nodes = [
        node("QuantizeLinear", "x sx zx", "xq", "xQ"),
        node("DequantizeLinear", "xq sx zx", "xd", "xDQ"),
        node("DequantizeLinear", "w sw zw", "wd", "wDQ", axis=0),
        node("DequantizeLinear", "b sb zb", "bd", "bDQ", axis=0),
        node("Conv", "xd wd bd", "c", "conv"),
        node("QuantizeLinear", "c sy zy", "cq", "cQ"),
        node("DequantizeLinear", "cq sy zy", "y", "cDQ"),
        *extra,
    ]
    return model(nodes, {"x": (2, 3, 4, 4)}, list(outputs), constants, opset=13)


def check_split(made, tmp_path, names):
    """float model + parameters = the model, bit for bit."""
    exported = tq.export_qparams(made)
    assert set(by_name(exported)) == names
    bare, path = tq.export_float_model(made), written(tmp_path, exported)
    inputs = random_inputs(made)
    expected, found = simulate(made, inputs), simulate(bare, inputs, encodings=path)
    assert list(found) == list(expected)
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value)
    assert by_name(tq.export_qparams(bare, encodings=path)) == by_name(exported)
    return bare


def test_weights_keep_the_names_of_their_integers(tmp_path):
    bare = check_split(qdq(), tmp_path, {"x", "w", "b", "c"})
    assert {t.name: t.data_type for t in bare.graph.initializer} == {"w": 1, "b": 1}
    assert [n.op_type for n in bare.graph.node] == ["Conv", "Identity"]


def test_a_tensor_that_is_read_as_it_is_too_keeps_both_names(tmp_path):
    extra = [node("Neg", "x", "z", "neg"), node("Abs", "xd", "v", "abs")]
    check_split(qdq(extra, ("y", "z", "v")), tmp_path, {"xd", "w", "b", "c"})


def test_a_tensor_on_two_grids_has_two_names(tmp_path):
    extra = [
        node("QuantizeLinear", "x sy zy", "x2q", "x2Q"), node("DequantizeLinear", "x2q sy zy", "x2d", "x2DQ"),
        node("Neg", "x2d", "z", "neg"), node("Identity", "x", "x3", "same"),
        node("QuantizeLinear", "x3 sb0 zx", "x3q", "x3Q"),
        node("DequantizeLinear", "x3q sb0 zx", "v", "x3DQ"),
    ]  # fmt: skip
    made = qdq(extra, ("y", "z", "v"), sb0=f32(0.3))
    check_split(made, tmp_path, {"xd", "x2d", "v", "w", "b", "c"})


def test_one_quantize_with_two_dequantizes(tmp_path):
    extra = [node("DequantizeLinear", "xq sx zx", "xe", "xDQ2"), node("Neg", "xe", "z", "neg")]
    check_split(qdq(extra, ("y", "z")), tmp_path, {"x", "w", "b", "c"})
    extra += [node("Abs", "x", "v", "abs")]
    check_split(qdq(extra, ("y", "z", "v")), tmp_path, {"xd", "w", "b", "c"})


@pytest.mark.parametrize(
    ("extra", "outputs", "message"),
    [
        ([], ("y", "cq"), "'cQ'"),
        ([node("DequantizeLinear", "cq sx zy", "z", "other")], ("y", "z"), "'other'"),
        ([node("DequantizeLinear", "w sy zw0", "z", "other")], ("y", "z"), "'other'"),
        ([node("DynamicQuantizeLinear", "x", "q s z", "dyn")], ("y", "q"), "'dyn'"),
        ([ms("QLinearSigmoid", "xq sx zx sx zx", "z", "ql")], ("y", "z"), "'xQ', 'ql'"),
    ],
)
def test_what_encodings_cannot_say_is_refused_by_name(extra, outputs, message):
    with pytest.raises(UnsupportedError, match=f"encodings cannot say how these nodes quantize: {message}"):
        tq.export_float_model(qdq(extra, outputs, zw0=np.int8(0)))


def test_the_same_name_on_two_grids_is_refused(tmp_path):
    extra = [node("DequantizeLinear", "w sy zw0", "z", "other")]
    with pytest.raises(UnsupportedError, match="tensor 'w' is quantized on two grids"):
        tq.export_qparams(qdq(extra, ("y", "z"), zw0=np.int8(0)))


def test_operators_on_integers_are_exported_by_their_tensors():
    constants = {
        "s": f32(0.05), "z": np.uint8(100), "w": np.ones((3, 4), np.int8), "sw": f32(0.1), "zw": np.int8(0),
    }  # fmt: skip
    nodes = [node("QLinearMatMul", "x s z w sw zw s z", "y", "mm")]
    made = model(nodes, {"x": ((2, 3), onnx.TensorProto.UINT8)}, ["y"], constants, opset=13)
    assert list(by_name(tq.export_qparams(made))) == ["x", "w", "y"]


def test_a_file_that_is_no_model_is_refused(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"\x08\x07hello")
    with pytest.raises(InputError):
        tq.export_float_model(path)


def test_json_is_plain(tmp_path):
    grids = {
        "x": asymmetric(-1.0, 2.0),
        "w": of_weight(np.ones((10, 10), np.float32), None),
        "y": symmetric(3.0),
    }
    made = model([node("Mul", "x w", "y")], {"x": (10, 10)}, ["y"], {"w": np.ones((10, 10), np.float32)})
    imported(made, encodings=written(tmp_path, document("0.5.0", grids)))
    exported = tq.export_qparams(made, encodings=tmp_path / "model.encodings")
    assert json.loads(json.dumps(exported, allow_nan=False)) == exported
