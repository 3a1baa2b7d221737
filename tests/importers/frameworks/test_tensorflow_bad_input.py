"""Damaged, hostile and untranslatable models: one line each, and nothing in them runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tvm_qat as tq
from tests.importers.frameworks.tensorflow_support import evaluated, frozen_graph, function, spec, tf
from tvm_qat.errors import InputError, UnsupportedError

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)


def graph(body: Callable[..., Any] | None = None) -> Any:
    return frozen_graph(function(body or (lambda x: tf.nn.relu(tf.matmul(x, WEIGHT))), spec(None, 3)))


def refused(source: Any, message: str, kind: type[InputError] = InputError, **options: Any) -> str:
    with pytest.raises(kind, match=message) as caught:
        tq.import_model(source, **options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 4
    return str(caught.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    module = tf.Module()
    module.weight = tf.Variable(WEIGHT)
    call = tf.function(lambda x: {"y": tf.matmul(x, module.weight)}, autograph=False)
    folder = tmp_path_factory.mktemp("saved") / "model"
    tf.saved_model.save(module, str(folder), signatures=call.get_concrete_function(spec(None, 3)))
    return folder


def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is no protobuf", "is not a GraphDef of TensorFlow, or is truncated"),
        (b"\x12\x00", "is an empty GraphDef"),
    ],
)
def test_files_that_are_no_graph(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "m.pb"
    path.write_bytes(content)
    refused(path, rf"m\.pb: .*{message}")


def test_truncated_files(tmp_path: Path):
    path, whole = tmp_path / "m.pb", graph().SerializeToString()
    for length in range(1, len(whole), 7):
        path.write_bytes(whole[:length])
        refused(path, r"m\.pb: ")


def test_damaged_saved_models(saved: Path, tmp_path: Path):
    folder = copy(saved, tmp_path)
    proto = folder / "saved_model.pb"
    whole = proto.read_bytes()
    proto.write_bytes(whole[: len(whole) // 2])
    refused(folder, "is not a SavedModel of TensorFlow, or is truncated")
    proto.write_bytes(whole)
    for part in (folder / "variables").iterdir():
        if "data" in part.name:
            part.write_bytes(part.read_bytes()[:10])
    refused(folder, r"cannot be read from the checkpoint")
    shutil.rmtree(folder / "variables")
    refused(folder, r"cannot be read from the checkpoint")
    proto.unlink()
    refused(folder, "is not a regular file")


def test_all_operators_without_translation_are_listed_at_once():
    def body(x):
        return tf.linalg.det(tf.cumsum(tf.math.lgamma(x), name="sums") @ tf.transpose(x), name="determinant")

    message = refused(graph(body), "operators without a translation", UnsupportedError)
    for said in ("Cumsum ('sums')", "Lgamma (", "MatrixDeterminant ('determinant')"):
        assert said in message


def test_code_and_files_are_refused_before_anything_runs(saved: Path, tmp_path: Path):
    target = tmp_path / "written"

    def body(x):
        with tf.control_dependencies([tf.io.write_file(str(target), "text")]):
            y = tf.strings.to_number(tf.io.read_file(str(tmp_path / "read")))
        return {"y": x * y + tf.py_function(lambda v: v, [x], tf.float32)}

    module = tf.Module()
    folder = tmp_path / "hostile"
    call = tf.function(body, autograph=False).get_concrete_function(spec(None, 3))
    tf.saved_model.save(module, str(folder), signatures=call)
    message = refused(folder, "operators without a translation", UnsupportedError)
    assert "EagerPyFunc" in message and "ReadFile" in message
    assert not target.exists()


def test_training_graphs():
    state = tf.Variable(1.0)

    def counts(x):
        state.assign_add(1.0)
        return x * state

    inner = tf.function(counts, autograph=False)
    refused(
        function(lambda x: inner(x), spec(3)),
        r"AssignAddVariableOp\): it changes a variable",
        UnsupportedError,
    )
    ones = np.ones(4, np.float32)

    def normalized(x):
        return tf.raw_ops.FusedBatchNormV3(
            x=x, scale=ones, offset=ones, mean=ones, variance=ones, is_training=True, name="norm"
        ).y

    body = function(normalized, spec(1, 2, 2, 4))
    refused(body, r"node 'norm' \(FusedBatchNormV3\): it normalizes by its batch", UnsupportedError)


def test_graphs_that_contradict_themselves():
    made = graph()
    relu = next(node for node in made.node if node.op == "Relu")
    product = next(node for node in made.node if node.op == "MatMul")
    kept = product.input[0]
    product.input[0] = "missing"
    refused(made, "node 'missing' is read but is not in the graph")
    product.input[0] = relu.name
    refused(made, "depends on its own result")
    product.input[0] = kept
    made.node.add().CopyFrom(relu)
    refused(made, "two nodes are called")


def test_constants_of_hostile_size():
    made = graph()
    constant = next(node for node in made.node if node.op == "Const")
    shape = constant.attr["value"].tensor.tensor_shape
    shape.dim[0].size = shape.dim[1].size = 1 << 40
    refused(made, "a constant of the shape")
    shape.dim[0].size, shape.dim[1].size = 3, 5
    refused(made, "its value is damaged")
    shape.dim[1].size = -1
    refused(made, "a constant of the shape")


def test_a_constant_whose_value_does_not_fit_its_type():
    made = graph(lambda x: x * tf.cast(tf.constant([1, 2, 3], tf.uint16), tf.float32))
    tensor = next(node for node in made.node if node.attr["value"].tensor.dtype == tf.uint16.as_datatype_enum)
    tensor.attr["value"].tensor.int_val[:] = [1, -1, 3]
    tensor.attr["value"].tensor.tensor_content = b""
    refused(made, "its value is damaged: .*out of bounds")


def test_functions_that_call_themselves():
    inner = tf.function(lambda x: tf.nn.relu(x), autograph=False)
    made = function(lambda x: inner(x), spec(3)).graph.as_graph_def()
    body = made.library.function[0]
    call = next(node for node in made.node if node.op == "PartitionedCall")
    relu = next(node for node in body.node_def if node.op == "Relu")
    relu.op = "PartitionedCall"
    relu.attr["f"].func.name = call.attr["f"].func.name
    for node in body.node_def:
        for i, name in enumerate(node.input):
            node.input[i] = name.replace(":activations:", ":output:")
    refused(made, "calls itself, or calls are nested too deep")


def test_shapes_that_do_not_fit():
    refused(graph(), "there is no input 'y' to give a shape.*the inputs are: x", input_shapes={"y": [1, 3]})
    refused(graph(), r"contradicts \[-1, 3\]", input_shapes={"x": [1, 4]})
    body = function(lambda x: tf.nn.relu(x), spec(None, name="x"))
    made = body.graph.as_graph_def()
    made.node[0].attr["shape"].shape.unknown_rank = True
    refused(made, "its rank is not known; give its shape")
    assert tq.import_model(made, input_shapes={"x": [2, 3]})


def test_a_signature_is_chosen_where_there_are_several(tmp_path: Path):
    module = tf.Module()
    one = tf.function(lambda x: tf.nn.relu(x), autograph=False).get_concrete_function(spec(3))
    two = tf.function(lambda x: tf.nn.tanh(x), autograph=False).get_concrete_function(spec(3))
    tf.saved_model.save(module, str(tmp_path / "m"), signatures={"one": one, "two": two})
    refused(tmp_path / "m", "no signature 'serving_default'; choose from: one, two")
    x = np.float32([-1, 0, 2])
    (got,) = evaluated(tmp_path / "m", {"x": x}, signature="two")
    np.testing.assert_allclose(got, np.tanh(x), rtol=1e-6)
    refused(graph(), "only a SavedModel has signatures", signature="two")


def test_strings_and_unknown_objects():
    refused(graph(lambda x: x + tf.strings.to_number(["1.0", "2.0", "3.0"])), "StringToNumber")
    refused(tf.function(lambda x: x), "the function has no input signature")
    refused(graph(), "takes no encodings file", encodings=__file__)


def test_symbolic_and_given_batches():
    made = graph()
    x = np.ones((5, 3), np.float32)
    for options in ({}, {"input_shapes": {"x": [5, 3]}}):
        (got,) = tq.compile(made, **options).run({"x": x}).values()
        np.testing.assert_array_equal(got, x @ WEIGHT)
