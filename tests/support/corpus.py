"""Finds the folder of real models beside the project."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

CORPUS = Path(__file__).resolve().parents[3] / "shared" / "corpus"

needs_corpus = pytest.mark.skipif(
    not CORPUS.is_dir() and not os.environ.get("CI"),
    reason="needs real models by others, which are never copied into this project: "
    "they are read from ../shared/corpus, and that folder is not here",
)
"""In CI the folder must be there: without it these tests fail instead of being left out."""

ONNX_FAMILIES = (
    "tiny_v13_kaijiang", "mlonmcu", "ort_testdata", "hobby_onnx", "qonnx_zoo", "finn", "dory", "deeploy"
)  # fmt: skip


def onnx_models() -> list[Path]:
    """The models that have reference vectors, or pairs of inputs and outputs by their authors."""
    found = [path for family in ONNX_FAMILIES for path in sorted((CORPUS / family).glob("*.onnx"))]
    return [path for path in found if vectors_file(path).exists() or _published(path, "outputs").exists()]


def tflite_models() -> list[Path]:
    """The TFLite models that have reference vectors, of LiteRT's reference kernels or published."""
    found = sorted(CORPUS.glob("*/*.tflite"))
    return [path for path in found if vectors_file(path).exists() or golden_file(path).exists()]


def one_of_each_folder(models: Iterable[Path]) -> list[Any]:
    """Parameters: the smallest model of each folder, if it has less than 256 KB; the others are slow."""
    models = list(models)
    smallest = {path.parent: path for path in sorted(models, key=_size, reverse=True) if _size(path) < 2**18}
    return [
        pytest.param(path, id=path.name, marks=[] if path in smallest.values() else [pytest.mark.slow])
        for path in models
    ]


def _size(path: Path) -> int:
    """Where the corpus is missing, 0."""
    return path.stat().st_size if path.exists() else 0


def golden_file(path: Path) -> Path:
    """Vectors that the model's authors published: arrays in0, in1, ... and golden."""
    return path.with_name(path.name + ".golden.npz")


def vectors_file(path: Path) -> Path:
    return path.with_name(path.name + ".io.npz")


def real_vectors(path: Path) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
    """The same for a real image, where there is one."""
    found = path.with_name(path.name + ".real.npz")
    return [_by_name(found)] if found.exists() else []


def _published(path: Path, which: str) -> Path:
    return path.with_name(f"{path.name}.{which}.npz")


def vectors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(inputs, outputs) by the model's own names; those of Deeploy's authors are whole numbers."""
    if not vectors_file(path).exists():
        with np.load(_published(path, "inputs")) as given, np.load(_published(path, "outputs")) as made:
            data, result = given[given.files[0]], made[made.files[0]]
        return {"input": data.astype(np.float32)}, {"output": result.astype(np.float32)}
    return _by_name(vectors_file(path))


def _by_name(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    with np.load(path) as arrays:
        inputs = {key[3:]: arrays[key] for key in arrays.files if key.startswith("in:")}
        outputs = {key[4:]: arrays[key] for key in arrays.files if key.startswith("out:")}
    return inputs, outputs
