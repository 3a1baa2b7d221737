"""Encodings hold for exactly the tensors they name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import tvm_qat as tq
from tests.importers.encodings.aimet import (
    Grid,
    asymmetric,
    document,
    of_weight,
    simulated,
    symmetric,
    written,
)
from tests.support.onnx_models import model, node
from tests.support.run import imported, simulate
from tvm_qat.errors import InputError
from tvm_qat.ir import bindings_of, op_name
from tvm_qat.qnn.params import params_of

COARSE = asymmetric(-1.0, 1.0, 4)
FINE = asymmetric(-1.0, 1.0, 8)
X = {"x": np.linspace(-1.2, 1.2, 40, dtype=np.float32).reshape(4, 10)}


def check(made, grids, tmp_path, version="0.6.1", inputs=X):
    """The imported module equals the simulation exactly: everything here is elementwise."""
    path = written(tmp_path, document(version, grids))
    expected, found = simulated(made, grids, inputs), simulate(made, inputs, encodings=path)
    assert list(found) == list(expected)
    for name, want in expected.items():
        np.testing.assert_array_equal(found[name], want, err_msg=name)
    return found


def test_all_readers_of_a_tensor_read_it_quantized(tmp_path):
    nodes = [node("Relu", "x", "r"), node("Neg", "r", "a"), node("Abs", "r", "b"), node("Sub", "x a", "c")]
    check(model(nodes, {"x": (4, 10)}, ["a", "b", "c", "r"]), {"r": COARSE}, tmp_path)


def test_inputs_and_outputs(tmp_path):
    nodes = [node("Relu", "x", "y"), node("Neg", "x", "z")]
    check(model(nodes, {"x": (4, 10)}, ["y", "z"]), {"x": FINE, "y": COARSE}, tmp_path)


def test_a_name_behind_an_identity_holds_for_its_own_readers_only(tmp_path):
    nodes = [node("Relu", "x", "r"), node("Identity", "r", "i"), node("Neg", "i", "y"), node("Neg", "r", "z")]
    made = model(nodes, {"x": (4, 10)}, ["y", "z"])
    one = check(made, {"i": COARSE}, tmp_path)
    assert not np.array_equal(one["y"], one["z"])
    both = check(made, {"r": FINE, "i": COARSE}, tmp_path)
    assert not np.array_equal(both["z"], one["z"])
    inherited = check(made, {"r": COARSE}, tmp_path)
    np.testing.assert_array_equal(inherited["y"], inherited["z"])


def test_a_weight_that_two_layers_share(tmp_path):
    w = np.random.default_rng(0).normal(0, 1, (10, 10)).astype(np.float32)
    nodes = [
        node("Mul", "x w", "a"),
        node("Identity", "w", "w2"),
        node("Add", "x w2", "b"),
        node("Sub", "x w", "c"),
    ]
    made = model(nodes, {"x": (10, 10)}, ["a", "b", "c"], {"w": w})
    inputs = {"x": np.resize(X["x"], (10, 10))}
    check(made, {"w": Grid((0.25,), (-128,), 8, True, None, True)}, tmp_path, inputs=inputs)


def test_several_outputs_of_one_node(tmp_path):
    nodes = [node("Split", "x", "a b", axis=1, num_outputs=2), node("Neg", "b", "c")]
    check(model(nodes, {"x": (4, 10)}, ["a", "c"]), {"b": COARSE}, tmp_path)


def test_a_constant_node_and_a_model_local_function_have_names_too(tmp_path):
    value = onnx.numpy_helper.from_array(np.float32([0.3] * 10), "v")
    nodes = [node("Constant", "", "k", value=value), node("Add", "x k", "y")]
    check(model(nodes, {"x": (4, 10)}, ["y"]), {"y": FINE}, tmp_path)


def test_per_channel_activations_along_the_axis_that_the_file_names(tmp_path):
    grid = Grid(tuple(0.1 * np.arange(1, 11)), (-100,) * 10, 8, False, 1)
    path = written(tmp_path, document("2.0.0", {"x": grid}))
    found = simulate(model([node("Neg", "x", "y")], {"x": (4, 10)}, ["y"]), X, encodings=path)["y"]
    np.testing.assert_array_equal(found, -grid.fake_quantized(X["x"]))


WEIGHTS = {
    "Conv": ((4, 3, 1, 1), 0, "d w", {}),
    "ConvTranspose": ((3, 4, 1, 1), 1, "d w", {}),
    "Gemm": ((12, 4), 1, "f w", {}),
    "Gemm-transposed": ((4, 12), 0, "f w", {"transB": 1}),
    "MatMul": ((12, 4), 1, "f w", {}),
    "MatMul-transposed": ((4, 12), 0, "f t", {}),
    "MatMul-identity": ((12, 4), 1, "f i", {}),
}


@pytest.mark.parametrize("version", ["0.5.0", "1.0.0", "2.0.0"])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_channels_of_a_weight_are_those_of_the_output(kind, version, tmp_path):
    shape, axis, operands, attrs = WEIGHTS[kind]
    w = np.random.default_rng(1).normal(0, 1, shape).astype(np.float32)
    nodes = [
        node("Reshape", "d shape", "f"), node("Transpose", "w", "t"), node("Identity", "w", "i"),
        node(kind.split("-")[0], operands, "y", **attrs),
    ]  # fmt: skip
    constants = {"w": w, "shape": np.array([4, 12], np.int64)}
    made = model(nodes, {"d": (4, 3, 2, 2)}, ["y"], constants, opset=13)
    mod = imported(made, encodings=written(tmp_path, document(version, {"w": of_weight(w, axis)})))
    (found,) = [b.value for b in bindings_of(mod["main"]) if op_name(b.value) == "qnn.fake_quantize"]
    assert params_of(found, "output").axis == axis


def small(tmp_path, grids, floats=None, version="0.6.1"):
    rng = np.random.default_rng(2)
    constants = {"conv.weight": rng.normal(0, 1, (4, 3, 1, 1)).astype(np.float32)}
    nodes = [node("Conv", "image conv.weight", "conv.out", "/conv"), node("Sigmoid", "conv.out", "y", "/act")]
    made = model(nodes, {"image": (1, 3, 4, 4)}, ["y"], constants)
    return made, written(tmp_path, document(version, grids, floats))


def test_names_that_match_nothing_are_named_with_the_closest(tmp_path):
    made, path = small(tmp_path, {"conv.wieght": symmetric(1.0), "imge": FINE, "zzzz": FINE, "q": FINE})
    with pytest.raises(InputError) as caught:
        imported(made, encodings=path)
    message = str(caught.value)
    assert message.startswith("model.encodings: the model has no tensor")
    assert "'conv.wieght' (closest: 'conv.weight'" in message
    assert "'imge' (closest: 'image'" in message
    assert "and 1 more" in message and "\n" not in message


@pytest.mark.parametrize(
    ("grids", "message"),
    [
        ({"conv.weight": Grid((1.0, 1.0), (-128, -128), 8, True, 0, True)}, "2 channel parameters for 4"),
        ({"y": Grid((1.0, 1.0), (-128, -128), 8, True, 7)}, "axis 7 is out of range for rank 4"),
    ],
)
def test_what_does_not_fit_its_tensor(grids, message, tmp_path):
    made, path = small(tmp_path, grids, version="2.0.0")
    with pytest.raises(InputError, match=rf"model\.encodings: encoding of .*{message}"):
        imported(made, encodings=path)


def test_a_tensor_of_integers_takes_no_encoding(tmp_path):
    made = model([node("Shape", "x", "y")], {"x": (4, 10)}, ["y"])
    with pytest.raises(InputError, match="encoding of 'y': the tensor is int64, not float"):
        imported(made, encodings=written(tmp_path, document("0.6.1", {"y": FINE})))


def reasons(made, path):
    return {layer.name: layer.reason for layer in tq.inspect(made, encodings=path).layers if layer.reason}


def test_what_has_no_encoding_stays_float_and_is_reported(tmp_path):
    made, path = small(tmp_path, {"image": FINE})
    found = reasons(made, path)
    assert "its weight is not quantized (no encoding names 'conv.weight')" in found["/conv"]
    made, path = small(tmp_path, {"image": FINE, "conv.weight": symmetric(1.0), "conv.out": FINE})
    assert "(no encoding names 'y')" in reasons(made, path)["/act"]


def test_a_float_encoding_is_the_reason(tmp_path):
    made, path = small(tmp_path, {"image": FINE}, {"conv.weight": 16})
    assert "(the encoding of 'conv.weight' is float16)" in reasons(made, path)["/conv"]


def test_without_encodings_nothing_is_said_about_them(tmp_path):
    made, _path = small(tmp_path, {})
    assert "encoding" not in str(reasons(made, None))


def test_a_missing_file_is_one_line(tmp_path):
    made, _path = small(tmp_path, {})
    with pytest.raises(InputError, match="cannot be read"):
        imported(made, encodings=tmp_path / "nowhere.encodings")
