"""The half for the machine with a GPU, run on a CPU: the same code on another device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from on_gpu import __main__ as gpu_check
from on_gpu import check, parts, work

from tests.support.cuda import needs_no_driver

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/gpu_check"


def _result(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def test_all_bits_are_compared_and_what_can_be_timed_is(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.main(["--run", str(folder), "--rounds", "2"]) == 0
    found = _result(folder)
    assert all(part["right"] == part["cases"] > 0 and not part["faults"] for part in found["parts"])
    assert [row["name"] for row in found["times"]] == ["gemm-100x64x96", "net"]
    assert all(row["rounds"] == 2 and row["tops"] > 0 for row in found["times"])
    assert "dense: 18 of 18 have the bits of the reference" in capfd.readouterr().out
    assert "cases have the right bits" in (folder / "result.md").read_text()


def test_a_wrong_bit_is_found(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with np.load(folder / "dense.npz") as stored:
        arrays = dict(stored)
    arrays["3.out0"].reshape(-1).view(np.uint8)[0] ^= 1
    np.savez_compressed(folder / "dense.npz", **arrays)
    assert gpu_check.main(["--run", str(folder), "--rounds", "0"]) == 1
    case = parts.read(folder).part("dense").cases[3].name
    size = arrays["3.out0"].size
    fault = f"{case}: 1 of {size} elements differ"
    assert [fault] in [part["faults"] for part in _result(folder)["parts"]]
    assert f"dense: {fault}" in capfd.readouterr().out


def test_a_library_that_cannot_be_loaded_does_not_end_the_check(folder: Path) -> None:
    (folder / "dense.so.xz").write_bytes((folder / "net.npz").read_bytes())
    assert gpu_check.main(["--run", str(folder), "--rounds", "0"]) == 1
    faults = {part["name"]: part["faults"] for part in _result(folder)["parts"]}
    assert len(faults["dense"]) == 1 and "loading: " in faults["dense"][0]
    assert not faults["net"]


_CHILD = """
import json, os, sys, time
first, faults = int(sys.argv[1]), {faults}
for number in range(first, 4):
    print(json.dumps({{"begun": number}}), flush=True)
    if number in faults:
        print("CUDA: an illegal memory access", file=sys.stderr, flush=True)
        faults[number]()
    print(json.dumps({{"case": number, "wrong": 0, "of": 8}}), flush=True)
"""


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        ("{1: os.abort}", ["c1: CUDA: an illegal memory access"]),
        pytest.param(
            "{0: os.abort, 3: lambda: time.sleep(9999)}",
            ["c0: CUDA: an illegal memory access", "c3: took too long"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_cases_after_one_that_dies_are_run(
    faults: str, expected: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def child(command: Sequence[str], errors: Any, patience: float) -> Any:
        program = [sys.executable, "-c", _CHILD.format(faults=faults), command[5]]
        return lines(program, errors, patience)

    lines = check._lines
    monkeypatch.setattr(check, "_lines", child)
    part = parts.read(folder).part("dense")
    part = replace(part, cases=tuple(replace(part.cases[0], name=f"c{i}") for i in range(4)))
    description = replace(parts.read(folder), parts=(part,))
    (outcome,) = check.check(folder, description, (part,), 0, 5, print)
    assert outcome.faults == expected
    assert outcome.right == 4 - len(expected)


@pytest.mark.parametrize(
    ("have", "want", "count"),
    [
        (np.array([1.0, np.nan, 3.0]), np.array([1.0, -np.nan, 3.0]), 0),
        (np.array([0.0, 1.0]), np.array([-0.0, 1.0]), 1),
        (np.array([1, 2], "int8"), np.array([1, 3], "int8"), 1),
        (np.array([1, 2], "uint8"), np.array([1, 2], "int8"), 2),
        (np.array([[1, 2]], "int8"), np.array([1, 2], "int8"), 2),
        (np.array(True), np.array(False), 1),
    ],
)
def test_elements_differ_by_their_bits(have: Any, want: Any, count: int) -> None:
    assert work.differing(have, want) == count


def test_neither_tvm_nor_tvm_qat_is_loaded(folder: Path) -> None:
    program = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; from on_gpu import work\n"
        f"assert list(work.work(Path({str(folder)!r}), 'dense', 17, 0))[-1]['wrong'] == 0\n"
        "assert 'tvm' not in sys.modules and 'tvm_qat' not in sys.modules\n"
        "assert 'libtvm_compiler' not in open('/proc/self/maps').read()\n"
        f"assert {str(folder / 'lib')!r} in open('/proc/self/maps').read()\n"
    )
    env = {**os.environ, "PYTHONPATH": str(SCRIPT.parent)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run([str(SCRIPT), *arguments], env=env, capture_output=True, text=True, check=False)


@needs_no_driver
def test_without_a_driver_one_line_says_so(folder: Path) -> None:
    replace(parts.read(folder), device="cuda", arch="sm_90").write(folder)
    done = _run("--run", str(folder))
    assert done.returncode == 5
    assert done.stderr.startswith("gpu_check: error: this machine has no NVIDIA driver: libcuda.so.1")
    assert done.stderr.count("\n") == 1 and not done.stdout


def test_a_folder_that_is_not_there_is_refused_in_one_line(tmp_path: Path) -> None:
    done = _run("--run", str(tmp_path / "nothing"))
    assert done.returncode == 4
    assert done.stderr.startswith("gpu_check: error: ") and done.stderr.count("\n") == 1


@needs_no_driver
def test_both_halves_ask_for_a_gpu_first(capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 5
    assert "this machine has no NVIDIA driver" in capfd.readouterr().err


def test_an_old_architecture_is_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert gpu_check.main(["--make", str(tmp_path), "--arch", "sm_60", "--only", "lut"]) == 4
    assert "sm_61 or later" in capfd.readouterr().err


def test_a_part_that_was_not_made_is_refused(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--run", str(folder), "--only", "bert"]) == 4
    assert "holds no bert" in capfd.readouterr().err


def test_processes_find_what_the_caller_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    program = "import json, os; print(json.dumps({'path': os.environ['PYTHONPATH']}))"
    first, last = check._lines([sys.executable, "-c", program], None, 60)
    assert first == {"path": f"{SCRIPT.parent}{os.pathsep}/somewhere/else"} and last == {"ended": 0}
