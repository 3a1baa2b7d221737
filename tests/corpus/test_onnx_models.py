"""Real ONNX models by others, each compiled once: against the reference, and against published vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import tvm_qat
from tests.support.corpus import CORPUS, needs_corpus, one_of_each_folder, onnx_models, vectors
from tvm_qat import pipeline
from tvm_qat.verification.evaluate import evaluate_module

pytestmark = [needs_corpus, pytest.mark.corpus]

STEP_EXPLAINS = {
    # Six convolutions in a row, then two outputs. A tie that float addition decides differently
    # moves one step in each layer; onnxruntime's own integer kernels give exactly our bits.
    # First output: the float sum of two quantized tensors, a step of each. Second: two steps.
    "qdq_with_multi_consumer_dq_nodes.onnx": (0.3364542 + 0.37177736, 2 * 0.37177736),
}
"""Largest difference allowed per output, where it is not zero up to float rounding."""

FLOAT_TAIL = 5e-6
"""What a float softmax or sum after the last quantized tensor may differ by."""

FLOAT_INPUT = {"qkeras_jettagging.onnx": (1024, "its input is not quantized")}
"""Multiply-accumulates in float, and why: the first layer reads the model's input as it comes."""


@pytest.mark.parametrize("path", one_of_each_folder(onnx_models()))
def test_compiled_model_repeats_the_reference_and_its_vectors(path: Path) -> None:
    """The reference bit for bit; float operators there are compiled by TVM as well."""
    inputs, expected = vectors(path)
    source = tvm_qat.import_model(path)
    package = tvm_qat.compile(source, "native")
    outputs = package.run(inputs)
    for array, wanted in zip(outputs.values(), evaluate_module(pipeline.run(source), inputs), strict=True):
        np.testing.assert_array_equal(array, wanted)
    allowed = STEP_EXPLAINS.get(path.name, (FLOAT_TAIL,) * len(expected))
    assert set(outputs) == set(expected)
    for (name, wanted), limit in zip(expected.items(), allowed, strict=True):
        assert outputs[name].shape == wanted.shape
        difference = np.abs(outputs[name].astype(np.float64) - wanted.astype(np.float64))
        assert difference.max(initial=0.0) <= limit * 1.000001, name
    _check_shares(package, path.name)


def _check_shares(package: tvm_qat.Package, name: str) -> None:
    """Every multiply-accumulate runs on integers, and every operator in float says why."""
    in_float, why = FLOAT_INPUT.get(name, (0, ""))
    assert package.totals["macs"] - package.totals["int8_macs"] == in_float
    for layer in package.layers:
        assert layer["integer"] or layer["reason"]
        assert layer["integer"] or not layer["macs"] or why in layer["reason"]


def test_kws_model_agrees_with_onnxruntime_on_a_thousand_labelled_inputs() -> None:
    """Published accuracy: 90.2 % by onnxruntime. The set's integers are steps of 0.5847 from 83."""
    path = CORPUS / "tiny_v13_kaijiang" / "kws_ref_model.onnx"
    with np.load(CORPUS / "data" / "kws01_eembc_1000.npz") as data:
        rows = (data["x"].astype(np.float32) - 83) * np.float32(0.5847029089927673)
        labels = data["y"]
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    package = tvm_qat.compile(path, "native")
    theirs = np.array([session.run(None, {"input_1": row[None]})[0].argmax() for row in rows])
    ours = np.array([next(iter(package.run([row[None]]).values())).argmax() for row in rows])
    assert abs((ours == labels).mean() - (theirs == labels).mean()) <= 0.001
    assert (theirs == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("name", "accuracy"),
    [
        ("TFC_1W2A", 0.9295),
        pytest.param("TFC_1W1A", 0.9, marks=pytest.mark.slow),
        pytest.param("TFC_2W2A", 0.9545, marks=pytest.mark.slow),
    ],
)
def test_tfc_classifies_two_thousand_digits_as_qonnx_does(name: str, accuracy: float) -> None:
    """`accuracy`: of qonnx 1.0, execute_onnx in batches of 100, on pixels divided by 255."""
    with np.load(CORPUS / "data" / "mnist_t10k_first2000.npz") as data:
        images, labels = data["x"].astype(np.float32) / np.float32(255), data["y"]
    package = tvm_qat.compile(CORPUS / "qonnx_zoo" / f"{name}.onnx", "native")
    found = [next(iter(package.run([image[None, None]]).values())).argmax() for image in images]
    assert np.mean(np.array(found) == labels) == pytest.approx(accuracy, abs=0.001)


def test_a_file_that_is_no_valid_onnx_is_refused() -> None:
    with pytest.raises(tvm_qat.InputError, match=r"toycar_2sort\.onnx"):
        tvm_qat.compile(CORPUS / "mlonmcu" / "toycar_2sort.onnx")
