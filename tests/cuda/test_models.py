"""Real ONNX models by others, compiled for a GPU and run in the emulator: the bits of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvm_qat
from tests.support.corpus import needs_corpus, onnx_models, vectors
from tests.support.cuda import Emulated, needs_compiler
from tests.support.open_sizes import OPEN_MODELS
from tvm_qat import pipeline
from tvm_qat.importers import import_model

pytestmark = [needs_compiler, needs_corpus, pytest.mark.corpus, pytest.mark.slow]

FAMILIES = ("tiny_v13_kaijiang", "mlonmcu", "ort_testdata", "hobby_onnx")
"""Those in the QDQ and QOperator forms of ONNX; for an unknown batch see test_open_sizes."""

LARGE = 60_000_000
"""Multiply-accumulates from which the emulator takes too long."""

MODELS = [path for path in onnx_models() if path.parent.name in FAMILIES and path.name not in OPEN_MODELS]


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.name)
def test_a_model_has_the_bits_of_this_machine(path: Path, tmp_path: Path) -> None:
    folded = pipeline.run(import_model(path))
    here = tvm_qat.compile(path, "native")
    machine = Emulated(folded, tmp_path)
    if here.totals["macs"] >= LARGE:
        pytest.skip("compiled, but not run: the emulator would take too long")
    inputs, _ = vectors(path)
    wanted = here.run(inputs)
    have = machine.run([inputs[info.name] for info in here.inputs])
    for array, output in zip(wanted.values(), have, strict=True):
        assert (output.dtype, output.shape) == (array.dtype, array.shape)
        assert output.tobytes() == array.tobytes()
