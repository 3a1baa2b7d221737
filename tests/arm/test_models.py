"""Real ONNX models by others, compiled for aarch64 and run under qemu: the bits of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

import tvm_qat
from tests.support.arm import COMPILER, LEVELS, needs_arm, run_on_arm, target
from tests.support.corpus import needs_corpus, onnx_models, vectors

pytestmark = [*needs_arm, needs_corpus, pytest.mark.corpus, pytest.mark.slow]


@pytest.mark.parametrize("path", onnx_models(), ids=lambda path: path.name)
def test_a_model_has_the_bits_of_this_machine(path: Path, tmp_path: Path) -> None:
    here = tvm_qat.compile(path, "native")
    inputs, _ = vectors(path)
    wanted = here.run(inputs)
    for level in LEVELS:
        library = tvm_qat.compile(path, target(level), cross_compiler=COMPILER).members()["mod.so"]
        call = ("main", [inputs[info.name] for info in here.inputs])
        (outputs,) = run_on_arm(library, level, [call], tmp_path)
        for (name, array), output in zip(wanted.items(), outputs, strict=True):
            assert output.dtype == array.dtype and output.shape == array.shape, (level, name)
            assert output.tobytes() == array.tobytes(), (level, name)
