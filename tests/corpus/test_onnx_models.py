"""Real ONNX models by others, compiled: against the reference, and against published vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import tvm_qat
from tests.support.corpus import CORPUS, needs_corpus, onnx_models, vectors
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


def _id(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", onnx_models(), ids=_id)
def test_compiled_model_matches_its_published_vectors(path: Path) -> None:
    inputs, expected = vectors(path)
    outputs = tvm_qat.compile(path, "native").run(inputs)
    allowed = STEP_EXPLAINS.get(path.name, (FLOAT_TAIL,) * len(expected))
    assert set(outputs) == set(expected)
    for (name, wanted), limit in zip(expected.items(), allowed, strict=True):
        assert outputs[name].shape == wanted.shape
        difference = np.abs(outputs[name].astype(np.float64) - wanted.astype(np.float64))
        assert difference.max(initial=0.0) <= limit * 1.000001, name


@pytest.mark.parametrize("path", onnx_models(), ids=_id)
def test_compiled_model_repeats_the_numpy_reference(path: Path) -> None:
    """Bit for bit, but for float operators, whose reference is compiled by TVM as well."""
    inputs, _ = vectors(path)
    folded = pipeline.run(tvm_qat.import_model(path))
    reference = evaluate_module(folded, inputs)
    outputs = tvm_qat.compile(path, "llvm").run(inputs)
    for array, wanted in zip(outputs.values(), reference, strict=True):
        np.testing.assert_array_equal(array, wanted)


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


@pytest.mark.parametrize("name", ["kws_ref_model", "resnet"])
def test_every_multiply_accumulate_runs_on_integers(name: str) -> None:
    report = tvm_qat.inspect(CORPUS / "tiny_v13_kaijiang" / f"{name}.onnx")
    assert report.totals["int8_mac_share"] == 1.0
    assert report.totals["macs"] > 1e6
    for layer in report.layers:
        assert layer.integer or layer.reason


def test_a_file_that_is_no_valid_onnx_is_refused() -> None:
    with pytest.raises(tvm_qat.InputError, match=r"toycar_2sort\.onnx"):
        tvm_qat.compile(CORPUS / "mlonmcu" / "toycar_2sort.onnx")
