"""Both halves where TVM's runtime finds a GPU that is none: its kernels run in the emulator."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from on_gpu import make, parts

from tests.support.cuda import TARGET, needs_compiler, needs_nvcc
from tests.support.gpu_machine import GpuMachine, emulated_kernels

pytestmark = [needs_compiler, needs_nvcc]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "scripts/on_gpu/__main__.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two parts for sm_80."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch, emulated_kernels(tmp_path_factory.mktemp("kernels")):
        patch.setattr(make, "GEMM", ((70, 64, 64),))
        make.make(folder, TARGET["arch"], ["softmax", "gemm"], [], folder, str)
    return folder


def _run(machine: GpuMachine, made: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    given = ("--run", str(made), "--out", str(folder), "--rounds", "1", *words)
    return machine.python(str(PROGRAM), *given, folder=folder)


def test_parts_are_compared_and_timed(machine: GpuMachine, made: Path, tmp_path: Path) -> None:
    done = _run(machine, made, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("emulated, code for sm_80\n")
    found = json.loads((tmp_path / "result.json").read_text())
    assert [part["name"] for part in found["parts"]] == ["softmax", "gemm-70x64x64"]
    assert all(part["right"] == part["cases"] > 0 and not part["faults"] for part in found["parts"])
    assert found["machine"] == "emulated"
    assert [row["name"] for row in found["times"]] == ["gemm-70x64x64"]
    names = sorted(file.name for file in (made / "lib").iterdir())
    assert names == ["libtvm_runtime.so", "libtvm_runtime_cuda.so", "libtvm_runtime_extra.so"]


def test_a_wrong_number_is_found(machine: GpuMachine, made: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    with np.load(folder / "gemm-70x64x64.npz") as stored:
        sums = stored["0.out0"]
    sums[66, 60] += 1
    np.savez_compressed(folder / "gemm-70x64x64.npz", **{"0.out0": sums})
    done = _run(machine, folder, tmp_path, "--only", "gemm")
    assert done.returncode == 1, done.stderr
    assert "gemm-70x64x64: 1 of 4480 elements differ" in done.stdout


def test_code_for_a_later_gpu_is_refused(machine: GpuMachine, made: Path, tmp_path: Path) -> None:
    replace(parts.read(made), arch="sm_100").write(tmp_path)
    done = _run(machine, tmp_path, tmp_path)
    assert done.returncode == 4
    assert "is for sm_100, this GPU is sm_90" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.slow
def test_one_command_makes_and_runs_where_there_is_a_gpu(machine: GpuMachine, tmp_path: Path) -> None:
    script = """
from pathlib import Path
from on_gpu import __main__ as gpu_check
from tests.support.gpu_machine import emulated_kernels

gpu_check._BUILD = Path("build")
with emulated_kernels(Path(".")):
    raise SystemExit(gpu_check.main(["--only", "lut"]))
"""
    (tmp_path / "both.py").write_text(f"import sys\nsys.path.insert(0, {str(ROOT / 'scripts')!r})\n{script}")
    done = machine.python("both.py", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "made lut" in done.stdout and "emulated, code for sm_90" in done.stdout
    assert "lut: 4 of 4 have the bits of the reference" in done.stdout
