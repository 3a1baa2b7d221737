"""What is said about the models: a table for the terminal, facts for digits.json."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import onnx

from models import training
from models.check import Comparison
from models.training import Digits, Trained

# The authors ask to be named wherever the images go.
SOURCE = {
    "title": "Optical Recognition of Handwritten Digits",
    "authors": "E. Alpaydin, C. Kaynak",
    "url": "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
    "obtained_from": "sklearn.datasets.load_digits",
    "changes": "each pixel doubled in both directions (8x8 to 16x16); stratified random split",
}

_HEAD = """
                                 literal                    optimized
                float      QAT  accuracy  off by    equal    accuracy  off by  nodes  seconds"""


def summary(
    trained: dict[str, Trained],
    comparisons: dict[str, Comparison],
    files: dict[str, onnx.ModelProto],
) -> str:
    """Here "literal" is onnxruntime with its optimizer off, "optimized" with it on.

    "off by" is the largest difference from the simulation, in steps of the logits' scale; "equal"
    the share of literal logits that are the simulation's bit for bit. Accuracies are percent.
    """
    lines = [_HEAD]
    for name, result in trained.items():
        seen = comparisons[name]
        lines.append(
            f"{name:12}{result.accuracy_float:9.2f}{result.accuracy_qat:9.2f}"
            f"{seen.accuracy_literal:10.2f}{seen.steps_literal:8.2f}{seen.same_logits:7.1f} %"
            f"{seen.accuracy_optimized:12.2f}{seen.steps_optimized:8.2f}"
            f"{len(files[name].graph.node):7}{result.seconds:9.0f}"
        )
    return "\n".join([*lines, ""])


def facts(
    trained: dict[str, Trained],
    comparisons: dict[str, Comparison],
    digits: Digits,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    """The content of digits.json. No times in it: the same seed gives the same file."""
    counts = {"train_images": len(digits.train_labels), "test_images": len(digits.test_labels)}
    return {
        "data": SOURCE | counts,
        "input": {
            "formula": "image = images * image_scale, float32, (N, 1, 16, 16)",
            "image_scale": training.PIXEL_SCALE,
        },
        "models": {name: _model(result, comparisons[name]) for name, result in trained.items()},
        "training": _training(epochs, seed),
        "versions": _versions(),
    }


def _model(result: Trained, comparison: Comparison) -> dict[str, Any]:
    spec = result.simulation.spec
    return {
        "file": f"{spec.name}.onnx",
        "output": spec.output,
        "accuracy_float": round(result.accuracy_float, 2),
        "accuracy_qat_simulation": round(result.accuracy_qat, 2),
        "accuracy_onnxruntime": round(comparison.accuracy_optimized, 2),
        "logit_step": comparison.step,
    }


def _training(epochs: int, seed: int) -> dict[str, Any]:
    return {
        "seed": seed,
        "epochs_float": epochs,
        "epochs_qat": training.qat_epochs(epochs),
        "batch": training.BATCH,
        "rate_float": training.RATE_FLOAT,
        "rate_qat": training.RATE_QAT,
        "weight_decay": training.WEIGHT_DECAY,
        "label_smoothing": training.SMOOTHING,
        "shift_pixels": training.SHIFT,
    }


def _versions() -> dict[str, str]:
    packages = ("torch", "scikit-learn", "onnx", "onnxruntime", "numpy")
    versions = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | versions
