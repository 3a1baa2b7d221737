"""Real models by others: at every layer compiled code repeats the reference, and that what was trained."""

from __future__ import annotations

import pytest

import tvm_qat
from tests.support.corpus import CORPUS, needs_corpus, vectors
from tvm_qat.verification import Verification

pytestmark = [needs_corpus, pytest.mark.corpus]

ONNX = [
    "hobby_onnx/mnist_factorio_quantized.onnx",
    "tiny_v13_kaijiang/kws_ref_model.onnx",
    "mlonmcu/micro_kws_m_static_qdq.onnx",
    "ort_testdata/conv.int4_weights.qdq.onnx",
    "ort_testdata/qdq_convs.onnx",
    "ort_testdata/dynamic_quantize_matmul.onnx",
    "ort_testdata/layout_transform_const_folding.qdq.onnx",
    "qonnx_zoo/TFC_1W2A.onnx",
    "deeploy/mlperf_kws_network.onnx",
]
TFLITE = [
    "tflite_micro/hello_world_int8.tflite",
    "ai_edge_quantizer/conv_fc_mnist_srq_a8w8.tflite",
    "tflite_micro/trained_lstm_int8.tflite",  # its steps share their names and shapes
]


def _first(names: list[str]) -> list[object]:
    """The others are slow: `tests/verification` has looked at every stage of smaller networks."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.slow) for name in names[1:])]


@pytest.mark.parametrize("name", _first(ONNX))
def test_an_onnx_model_is_the_same_at_every_layer(name: str):
    inputs, _ = vectors(CORPUS / name)
    _check(tvm_qat.verify(CORPUS / name, inputs, max_steps=1))


@pytest.mark.parametrize("name", _first(TFLITE))
def test_a_tflite_model_is_the_same_at_every_layer(name: str):
    _check(tvm_qat.verify(CORPUS / name, samples=2, rounding="tflite", max_steps=1))


def _check(found: Verification) -> None:
    assert found.passed, found.failures
    summaries = found.summaries
    assert summaries["canonical_vs_simulation"].differing == 0
    assert summaries["reference_vs_simulation"].unexplained == 0
    compiled = next(stage for stage in found.stages if stage.name == "compiled")
    assert sum(layer.op != "output" for layer in compiled.layers) >= 1
    assert [layer.name for layer in compiled.layers if layer.figures.differing] == []
