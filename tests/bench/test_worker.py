from __future__ import annotations

import gc
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tvm_qat.bench import worker


class CountingEngine:
    """Adds one to its input, and keeps count."""

    version = "7.0"
    runs = 0

    def __init__(self, model: str, inputs: dict[str, Any], threads: int) -> None:
        assert (model, threads) == ("a model", 1)
        self.inputs = inputs
        type(self).runs = 0

    def run(self) -> None:
        type(self).runs += 1

    def outputs(self) -> list[Any]:
        return [array + 1 for array in self.inputs.values()]


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setitem(sys.modules, "counting", SimpleNamespace(Engine=CountingEngine))  # type: ignore[misc]
    np.savez(tmp_path / "in.npz", x=np.arange(3))
    yield json.dumps(
        {"engine": "counting", "model": "a model", "inputs": str(tmp_path / "in.npz"), "threads": 1,
         "cores": [], "first": False}
    )  # fmt: skip
    gc.enable()


def talk(*lines: str) -> list[dict[str, Any]]:
    replies = io.StringIO()
    assert worker.serve(io.StringIO("\n".join(lines) + "\n"), replies) == 0
    return [json.loads(line) for line in replies.getvalue().splitlines()]


def test_the_first_answer_says_what_runs_and_how_long_it_took_to_start(spec: str):
    (facts,) = talk(spec)
    assert facts["version"] == "7.0"
    assert set(facts) == {"version", "load_seconds", "first_seconds", "warm_seconds"}
    assert all(value >= 0 for name, value in facts.items() if name != "version")


def test_every_timed_run_has_wall_time_cpu_time_and_lost_time(spec: str):
    answer = talk(spec, "run 3")[1]
    assert {name: len(values) for name, values in answer.items()} == {"wall": 3, "cpu": 3, "lost": 3}
    assert min(answer["wall"]) >= 0 and min(answer["lost"]) >= 0


def test_untimed_runs_go_first_in_every_turn(spec: str):
    talk(spec)
    started = CountingEngine.runs
    talk(spec, "run 3")
    assert CountingEngine.runs == started + 1 + 3
    talk(spec, "run 50")
    assert CountingEngine.runs == started + 6 + 50


def test_outputs_are_written_where_asked(spec: str, tmp_path: Path):
    assert talk(spec, f"outputs {tmp_path / 'out.npz'}")[1] == {}
    with np.load(tmp_path / "out.npz") as data:
        np.testing.assert_array_equal(data["arr_0"], [1, 2, 3])


def test_memory_is_peak_and_what_was_there_before_the_runtime(spec: str):
    memory = talk(spec, "memory")[1]
    assert memory["peak"] >= memory["base"] > 1 << 20


def test_nothing_is_answered_after_quit(spec: str):
    assert len(talk(spec, "quit", "run 3")) == 1


def test_what_several_threads_lose_is_asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch):
    waited = iter([1.0, 1.25, 2.0, 2.0])
    monkeypatch.setattr(worker, "_waited", lambda: next(waited))
    engine = SimpleNamespace(run=lambda: None)
    assert worker.timed_runs(engine, 2, threads=2)["lost"] == [0.25, 0.0]


def test_time_in_the_queue_only_grows():
    before = worker._waited()
    assert 0 <= before <= worker._waited()
