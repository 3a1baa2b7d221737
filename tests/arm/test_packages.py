"""Models compiled for aarch64 here and run under qemu: the bits of this machine."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

import tvm_qat
from tests.support.arm import COMPILER, PROCESSORS, needs_arm, run_on_arm, target
from tvm_qat.cli import main
from tvm_qat.demo import demo_files

pytestmark = needs_arm


def digits(count: int) -> list[np.ndarray]:
    with demo_files() as folder, np.load(folder / "digits.npz") as data:
        images = data["images"][:count].astype(np.float32) / np.float32(16)
    return list(images.reshape(count, 1, 1, 16, 16))


@pytest.mark.parametrize("model", [pytest.param("digits_cnn", marks=pytest.mark.slow), "digits_mlp"])
@pytest.mark.parametrize("level", PROCESSORS)
def test_the_demo_models_have_the_bits_of_this_machine(level: str, model: str, tmp_path: Path) -> None:
    with demo_files() as folder:
        here = tvm_qat.compile(folder / f"{model}.onnx", "native")
        there = tvm_qat.compile(folder / f"{model}.onnx", target(level), cross_compiler=COMPILER)
    library = there.members()["mod.so"]
    outputs = run_on_arm(library, level, [("main", [image]) for image in digits(8)], tmp_path)
    for image, (output,) in zip(digits(8), outputs, strict=True):
        (wanted,) = here.run([image]).values()
        np.testing.assert_array_equal(output, wanted)


def test_a_package_of_the_command_line_runs_there(tmp_path: Path) -> None:
    """As README tells it: compile, unpack, run."""
    with demo_files() as folder:
        arguments = ["compile", str(folder / "digits_cnn.onnx"), "-o", str(tmp_path / "cnn.tar")]
        spec = json.dumps(target("neon"))
        assert main([*arguments, "--target", spec, "--cross-compiler", COMPILER]) == 0
        here = tvm_qat.compile(folder / "digits_cnn.onnx", "native")
    with tarfile.open(tmp_path / "cnn.tar") as package:
        library = package.extractfile("mod.so")
        assert library is not None
        ((output,),) = run_on_arm(library.read(), "neon", [("main", digits(1))], tmp_path)
    np.testing.assert_array_equal(output, here.run(digits(1))["logits"])
