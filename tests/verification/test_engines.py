"""Beside other engines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.cli.conftest import MODEL
from tests.support.tflite_models import constant, one, tensor
from tvm_qat.verification import engines


def test_onnxruntime_shows_its_quantized_tensors():
    found = tvm_qat.verify(MODEL, samples=2, target="llvm", against="onnxruntime")
    stage = next(stage for stage in found.stages if stage.against == "onnxruntime")
    quantizers = [layer.quantizer for layer in stage.layers]
    assert quantizers == [
        "image/quantize", "flatten/quantize", "fc1/quantize", "fc2/quantize", "fc3/quantize", None,
    ]  # fmt: skip
    assert all((layer.figures.max_steps or 0) <= 1 for layer in stage.layers)
    assert stage.layers[-1].name == "probabilities" and stage.layers[-1].figures.elements == 20
    assert found.passed and "reference_vs_onnxruntime" in found.to_json()["summary"]


def test_litert_is_repeated_bit_for_bit(tmp_path: Path):
    rng = np.random.default_rng(0)
    tensors = [
        tensor("x", (2, 8), "int8", 0.05, 3),
        constant("w", rng.integers(-127, 128, (5, 8)).astype(np.int8), 0.02),
        tensor("y", (2, 5), "int8", 0.3, -4),
    ]
    path = tmp_path / "dense.tflite"
    path.write_bytes(one("FULLY_CONNECTED", tensors, "FullyConnectedOptions"))
    found = tvm_qat.verify(path, samples=20, target="llvm", rounding="tflite", against="litert")
    stage = next(stage for stage in found.stages if stage.against == "litert")
    assert [(layer.op, layer.figures.elements) for layer in stage.layers] == [("output", 100)]
    assert stage.layers[0].figures.differing == 0


def test_an_engine_that_is_not_installed_is_named_with_its_pip_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(tvm_qat.MissingDependencyError, match=r"pip install 'tvm-qat\[torch\]'") as refused:
        tvm_qat.verify(MODEL, against="torch")
    assert refused.value.exit_code == 5


@pytest.mark.parametrize(("engine", "reason"), [("abacus", "not known"), ("litert", "it runs TFLite files")])
def test_an_engine_that_cannot_run_the_model_is_refused(engine: str, reason: str):
    with pytest.raises(tvm_qat.InputError, match=reason):
        tvm_qat.verify(MODEL, samples=1, target="llvm", against=engine)
