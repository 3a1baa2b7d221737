"""Real TFLite models by others, compiled: against LiteRT's reference kernels and published vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.support.corpus import CORPUS, golden_file, needs_corpus, tflite_models, vectors
from tvm_qat import pipeline
from tvm_qat.ir import dtype_of, static_shape
from tvm_qat.verification.evaluate import evaluate_module

pytestmark = [needs_corpus, pytest.mark.corpus]

STEPS = {
    # LiteRT's fixed point and our float32 differ by a step in a layer; deep networks gather some
    "mobilenet_v1_0.25_128_quant.tflite": 5,
    "mobilenet_v2_1.0_224_quant.tflite": 2,
    "aww.tflite": 2,
}
"""Largest difference allowed, in steps of the output, where it is not one."""


def _vectors(path: Path, names: list[str], outputs: list[str]) -> tuple[dict, dict]:
    if not golden_file(path).exists():
        return vectors(path)
    with np.load(golden_file(path)) as arrays:
        inputs = {name: arrays[f"in{i}"] for i, name in enumerate(names) if f"in{i}" in arrays.files}
        return inputs, {outputs[0]: arrays["golden"]}


INEXACT = ("mnist_quantized", "partly_quantized", "micro_speech_lstm", "trained_lstm_int8")
"""Models with layers in float, whose last bits are ours, and unrolled LSTMs, whose compilation takes long."""


@pytest.mark.parametrize(
    "path", [p for p in tflite_models() if p.name.startswith(INEXACT)], ids=lambda path: path.name
)
def test_profile_tflite_repeats_litert_in_the_reference(path: Path) -> None:
    """Integers bit for bit; what is float in the file, within the order of its additions."""
    mod = tvm_qat.import_model(path)
    func = mod["main"]
    names, results = ([str(n) for n in func.attrs[f"{side}put_names"]] for side in ("in", "out"))
    inputs, expected = _vectors(path, names, results)
    begins = dict(func.attrs.items()).get("input_initials", {})
    for name, param in zip(names, func.params, strict=True):
        if name not in inputs:
            inputs[name] = np.full(static_shape(param), begins.get(name, 0), dtype_of(param))
    found = dict(zip(results, evaluate_module(pipeline.run(mod, rounding="tflite"), inputs), strict=True))
    for name, wanted in expected.items():
        limit = 1e-4 if wanted.dtype == np.float32 else 0
        assert np.abs(found[name].astype(np.float64) - wanted.astype(np.float64)).max(initial=0) <= limit


@pytest.mark.parametrize("path", tflite_models(), ids=lambda path: path.name)
def test_compiled_model_matches_its_vectors(path: Path) -> None:
    package = tvm_qat.compile(path, "native")
    info = {output.name: output for output in package.outputs}
    inputs, expected = _vectors(path, [i.name for i in package.inputs], list(info))
    outputs = package.run(inputs)
    for name, wanted in expected.items():
        assert outputs[name].shape == wanted.shape and outputs[name].dtype == wanted.dtype
        steps = np.abs(outputs[name].astype(np.float64) - wanted.astype(np.float64))
        if wanted.dtype == np.float32:
            scale = info[name].qparams.scale if info[name].qparams else None
            steps = steps / scale if scale is not None else steps > 1e-4
        assert steps.max(initial=0) <= STEPS.get(path.name, 1) * 1.0001


@pytest.mark.parametrize(
    "path", [p for p in tflite_models() if not p.name.startswith(INEXACT)], ids=lambda path: path.name
)
def test_profile_tflite_gives_the_vectors_bit_for_bit(path: Path) -> None:
    package = tvm_qat.compile(path, "native", rounding="tflite")
    names = [output.name for output in package.outputs]
    inputs, expected = _vectors(path, [i.name for i in package.inputs], names)
    outputs = package.run(inputs)
    for name, wanted in expected.items():
        np.testing.assert_array_equal(outputs[name], wanted)


def test_a_file_with_contradictory_quantization_is_refused() -> None:
    with pytest.raises(tvm_qat.InputError, match=r"person_detect\.tflite: .*dimension 3, but has 1"):
        tvm_qat.compile(CORPUS / "tflite_micro" / "person_detect.tflite")


def test_kws_accuracy_is_that_of_the_reference_engine() -> None:
    """LiteRT's reference kernels: 90.1 % of the thousand labelled inputs."""
    with np.load(CORPUS / "data" / "kws01_eembc_1000.npz") as data:
        rows, labels = data["x"].astype(np.int8), data["y"]
    with np.load(CORPUS / "data" / "kws_ref_model_litert_ref_outputs_1000.npz") as data:
        theirs = data[data.files[0]].reshape(len(labels), -1).argmax(axis=1)
    package = tvm_qat.compile(CORPUS / "mlperf_tiny" / "kws_ref_model.tflite", "native")
    ours = np.array([next(iter(package.run([row.reshape(1, 49, 10, 1)]).values())).argmax() for row in rows])
    assert abs(int((ours == labels).sum()) - int((theirs == labels).sum())) <= 1
