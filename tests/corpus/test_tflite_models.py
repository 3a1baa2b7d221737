"""Real TFLite models by others, compiled: against LiteRT's reference kernels and published vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.support.corpus import (
    CORPUS,
    golden_file,
    needs_corpus,
    one_of_each_folder,
    real_vectors,
    tflite_models,
    vectors,
)
from tvm_qat.package import Package

pytestmark = [needs_corpus, pytest.mark.corpus]

STEPS = {
    # LiteRT's fixed point and our float32 differ by a step in a layer; deep networks gather some
    "mobilenet_v1_0.25_128_quant.tflite": 5,
    "mobilenet_v2_1.0_224_quant.tflite": 2,
    "aww.tflite": 2,
}
"""Largest difference of the default rounding, in steps of the output, where it is not one."""

IN_FLOAT = ("mnist_quantized.tflite", "partly_quantized_mnist.tflite")
"""Models with layers in float: their last bits depend on the order of additions."""


def _vectors(path: Path, package: Package) -> list[tuple[dict, dict]]:
    if not golden_file(path).exists():
        return [vectors(path), *real_vectors(path)]
    names = [info.name for info in package.inputs]
    with np.load(golden_file(path)) as arrays:
        inputs = {name: arrays[f"in{i}"] for i, name in enumerate(names) if f"in{i}" in arrays.files}
        return [(inputs, {package.outputs[0].name: arrays["golden"]})]


@pytest.mark.parametrize("path", one_of_each_folder(tflite_models()))
def test_profile_tflite_gives_the_vectors_bit_for_bit(path: Path) -> None:
    package = tvm_qat.compile(path, "native", rounding="tflite")
    for inputs, expected in _vectors(path, package):
        outputs = package.run(inputs)
        for name, wanted in expected.items():
            limit = 1e-4 if path.name in IN_FLOAT else 0
            assert outputs[name].shape == wanted.shape and outputs[name].dtype == wanted.dtype
            difference = np.abs(outputs[name].astype(np.float64) - wanted.astype(np.float64))
            assert difference.max(initial=0) <= limit
    if path.name not in IN_FLOAT:
        assert package.totals["int8_mac_share"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("path", tflite_models(), ids=lambda path: path.name)
def test_the_default_rounding_is_a_step_away(path: Path) -> None:
    """Random inputs by steps, images by what is seen on them."""
    package = tvm_qat.compile(path, "native")
    info = {output.name: output for output in package.outputs}
    (inputs, expected), *images = _vectors(path, package)
    outputs = package.run(inputs)
    for name, wanted in expected.items():
        assert outputs[name].shape == wanted.shape and outputs[name].dtype == wanted.dtype
        steps = np.abs(outputs[name].astype(np.float64) - wanted.astype(np.float64))
        if wanted.dtype == np.float32:
            scale = info[name].qparams.scale if info[name].qparams else None
            steps = steps / scale if scale is not None else steps > 1e-4
        assert steps.max(initial=0) <= STEPS.get(path.name, 1) * 1.0001
    for inputs, expected in images:
        for name, wanted in expected.items():
            assert package.run(inputs)[name].argmax() == wanted.argmax()


def test_a_file_with_contradictory_quantization_is_refused() -> None:
    """LiteRT refuses it, too."""
    with pytest.raises(tvm_qat.InputError, match=r"person_detect\.tflite: .*dimension 3, but has 1"):
        tvm_qat.compile(CORPUS / "tflite_micro" / "person_detect.tflite")


@pytest.mark.parametrize(
    ("rounding", "others"), [pytest.param(None, 1, marks=pytest.mark.slow), ("tflite", 0)]
)
def test_kws_accuracy_is_that_of_the_reference_engine(rounding: str | None, others: int) -> None:
    """LiteRT's reference kernels: 90.1 % of the thousand labelled inputs."""
    with np.load(CORPUS / "data" / "kws01_eembc_1000.npz") as data:
        rows, labels = data["x"].astype(np.int8), data["y"]
    with np.load(CORPUS / "data" / "kws_ref_model_litert_ref_outputs_1000.npz") as data:
        theirs = data[data.files[0]].reshape(len(labels), -1)
    package = tvm_qat.compile(CORPUS / "mlperf_tiny" / "kws_ref_model.tflite", "native", rounding=rounding)
    ours = np.array([next(iter(package.run([row.reshape(1, 49, 10, 1)]).values()))[0] for row in rows])
    right, known = (int((made.argmax(axis=1) == labels).sum()) for made in (ours, theirs))
    assert abs(right - known) <= others
    assert rounding is None or np.array_equal(ours, theirs)
