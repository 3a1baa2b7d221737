"""Real ONNX models by others, compiled for a GPU and run on the emulated one: the bits of this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.support.corpus import needs_corpus, onnx_models, vectors
from tests.support.cuda import TARGET, needs_compiler, needs_nvcc
from tests.support.gpu_machine import GpuMachine, emulated_kernels
from tests.support.open_sizes import OPEN_MODELS

pytestmark = [needs_compiler, needs_nvcc, needs_corpus, pytest.mark.corpus, pytest.mark.slow]

MODELS = [path for path in onnx_models() if path.name not in OPEN_MODELS]
"""For an unknown batch see test_open_sizes."""


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_a_model_has_the_bits_of_this_machine(machine: GpuMachine, path: Path, tmp_path: Path) -> None:
    here = tvm_qat.compile(path, "native")
    with emulated_kernels(tmp_path):
        tvm_qat.compile(path, TARGET).save(tmp_path / "model.tar")
    inputs, _ = vectors(path)
    np.savez(tmp_path / "in.npz", **inputs)
    words = ("-m", "tvm_qat", "run", "model.tar", "-i", "in.npz", "-o", "out.npz")
    done = machine.python(*words, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "out.npz") as made:
        for name, wanted in here.run(inputs).items():
            assert (made[name].dtype, made[name].shape) == (wanted.dtype, wanted.shape)
            assert made[name].tobytes() == wanted.tobytes(), name
