from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import DEMO
from tvm_qat.bench import runners
from tvm_qat.bench.engines import RUNTIMES
from tvm_qat.bench.runners import Contender, check_installed, choose_cores, interleave, started
from tvm_qat.bench.timing import Turn
from tvm_qat.errors import InputError, MissingDependencyError


class FakeRunner:
    """Writes its label to a common log for every turn; `disturbed` turns at first."""

    def __init__(self, label: str, log: list[str], each: float = 0.01, disturbed: int = 0) -> None:
        self.label, self.log, self.disturbed = label, log, disturbed
        self.threads = 1
        self.facts: dict[str, Any] = {"warm_seconds": each}
        self.counts: list[int] = []

    def turn(self, count: int) -> Turn:
        self.log.append(self.label)
        self.counts.append(count)
        lost = 0.5 if len(self.counts) <= self.disturbed else 0.0
        return Turn((1.0,) * count, (1.0 - lost,) * count, (lost,) * count)


def take_turns(*fakes: FakeRunner, rounds: int) -> dict[str, list[Turn]]:
    return interleave(fakes, rounds=rounds, turn_seconds=0.1)  # type: ignore[arg-type]


def test_runtimes_take_turns():
    log: list[str] = []
    take_turns(*(FakeRunner(label, log) for label in "ABC"), rounds=2)
    assert "".join(log) == "ABCABC"


def test_a_turn_takes_about_the_same_time_for_all():
    fast, slow, slowest = (FakeRunner("x" * i, [], each) for i, each in enumerate((0.01, 0.05, 3.0)))
    take_turns(fast, slow, slowest, rounds=1)
    assert (fast.counts, slow.counts, slowest.counts) == ([10], [2], [1])


def test_disturbed_rounds_are_repeated():
    log: list[str] = []
    turns = take_turns(FakeRunner("A", log), FakeRunner("B", log, disturbed=2), rounds=3)
    assert "".join(log) == "AB" * 5
    assert {label: len(found) for label, found in turns.items()} == {"A": 5, "B": 5}


def test_a_machine_that_is_never_idle_is_given_up_on():
    log: list[str] = []
    take_turns(FakeRunner("A", log, disturbed=1000), rounds=2)
    assert len(log) == 6


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match="'tensorrt' is not known; choose from tvm_qat, onnxruntime"):
        check_installed(["tensorrt"])


def test_missing_runtimes_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runners, "find_spec", lambda module: None if module != "tvm" else object())
    with pytest.raises(MissingDependencyError, match="pip install openvino ai-edge-litert") as caught:
        check_installed(["tvm_qat", "openvino", "litert"])
    assert caught.value.exit_code == 5


def test_more_threads_than_cores_are_refused():
    with pytest.raises(InputError, match="9999 threads asked for"):
        choose_cores(9999)


def test_a_runtime_that_cannot_load_its_model_is_named_with_its_reason(tmp_path: Path):
    (tmp_path / "m.onnx").write_bytes(b"not a model")
    np.savez(tmp_path / "in.npz", x=np.zeros(1))
    broken = Contender("onnxruntime", "onnxruntime", str(tmp_path / "m.onnx"), str(tmp_path / "in.npz"))
    with (
        pytest.raises(InputError, match=r"onnxruntime cannot run the model: .*m\.onnx"),
        started([broken]),
    ):
        pass


def test_a_worker_answers_and_ends_with_its_block(tmp_path: Path):
    with np.load(DEMO / "digits.npz") as data:
        image = data["images"][:1].astype(np.float32) / 255
    np.savez(tmp_path / "in.npz", image=image)
    demo = Contender("onnxruntime", "onnxruntime", str(DEMO / "digits_cnn.onnx"), str(tmp_path / "in.npz"))
    with started([demo]) as (runner,):
        assert len(runner.turn(2).wall) == 2
    assert runner.ended


def test_workers_find_what_this_process_finds():
    variables = runners.environment(RUNTIMES["tvm_qat"], 2)
    assert variables["TVM_NUM_THREADS"] == "2"
    assert variables["OMP_NUM_THREADS"] == "2"
    assert set(filter(None, sys.path)) <= set(variables["PYTHONPATH"].split(":"))
    assert json.dumps(variables)
