"""Both halves for a GPU: made here, run by TVM's runtime alone on a driver whose kernels are emulated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from on_gpu import make

from tests.support.cuda import needs_compiler, needs_nvcc
from tests.support.gpu_machine import emulated_kernels, make_machine

pytestmark = [needs_compiler, needs_nvcc]

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_packages_for_a_gpu_are_compared_and_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(make, "GEMM", ((70, 64, 96),))
    folder = tmp_path / "made"
    with emulated_kernels(tmp_path):
        make.make(folder, "sm_80", ["softmax", "gemm"], [], tmp_path, print)
    machine = make_machine(tmp_path / "driver")
    done = machine.python("-m", "on_gpu", "--run", str(folder), "--rounds", "1", folder=SCRIPTS)
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "result.json").read_text())
    assert [part["name"] for part in found["parts"]] == ["softmax", "gemm-70x64x96"]
    assert all(part["right"] == part["cases"] > 0 and not part["faults"] for part in found["parts"])
    assert [row["name"] for row in found["times"]] == ["gemm-70x64x96"]
    assert "**emulated**" in done.stdout
