"""The worker processes, and the turns they take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from tvm_qat.bench.engines import RUNTIMES, Runtime
from tvm_qat.bench.timing import Turn
from tvm_qat.errors import InputError, MissingDependencyError, TvmQatError, located

_MOST_RUNS = 2000
_SETTLE = 0.25
"""Seconds after a turn on several threads: they spin for a while, waiting for more work."""
_PATIENCE = 3
"""Rounds may be this many times those asked for before a busy machine is given up on."""


@dataclass(frozen=True)
class Contender:
    """label : its name in tables. model : the file that its runtime loads. inputs : an npz file."""

    label: str
    runtime: str
    model: str
    inputs: str
    threads: int = 1


class Runner:
    """A running worker. `facts` is what it said of itself when it was ready."""

    def __init__(self, process: subprocess.Popen[str], contender: Contender, errors: Any) -> None:
        self.label = contender.label
        self.threads = contender.threads
        self.facts: dict[str, Any] = {}
        self._process = process
        self._errors = errors

    def ask(self, line: str) -> dict[str, Any]:
        """One command, one answer. Raises TvmQatError if the worker died over it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        answer = self._process.stdout.readline()
        if not answer:
            raise self._died()
        found: dict[str, Any] = json.loads(answer)
        return found

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def turn(self, count: int) -> Turn:
        return Turn.from_json(self.ask(f"run {count}"))

    def _died(self) -> TvmQatError:
        self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        reason = lines[-1] if lines else f"exit code {self._process.returncode}"
        return InputError(f"{self.label} cannot run the model: {reason}")


def check_installed(names: Sequence[str]) -> None:
    """Raise before anything is compiled: InputError for an unknown runtime, else for missing packages."""
    unknown = [name for name in names if name not in RUNTIMES]
    if unknown:
        known = ", ".join(RUNTIMES)
        raise InputError(located(f"runtime {unknown[0]!r} is not known", remedy=f"choose from {known}"))
    missing = [RUNTIMES[name] for name in names if find_spec(RUNTIMES[name].module) is None]
    if missing:
        wanted = " ".join(runtime.pip for runtime in missing)
        listed = ", ".join(runtime.name for runtime in missing)
        raise MissingDependencyError(located(f"{listed} not installed", remedy=f"pip install {wanted}"))


def choose_cores(threads: int) -> list[int]:
    """The last cores this process may use: interrupts tend to go to the first."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    if threads > len(cores):
        raise InputError(f"{threads} threads asked for, this process may use {len(cores)} cores")
    return cores[-threads:]


@contextmanager
def started(contenders: Sequence[Contender], *, first: bool = False) -> Iterator[list[Runner]]:
    """One worker for each, loaded one after the other; all are stopped at the end.

    first : they go before other processes, where the system allows it.
    """
    cores = {contender.label: choose_cores(contender.threads) for contender in contenders}
    with ExitStack() as stack:
        runners = []
        for contender in contenders:
            runtime = RUNTIMES[contender.runtime]
            runner = stack.enter_context(_worker(contender, runtime))
            spec = {
                "engine": runtime.home, "model": contender.model, "inputs": contender.inputs,
                "threads": contender.threads, "cores": cores[contender.label], "first": first,
            }  # fmt: skip
            runner.facts = runner.ask(json.dumps(spec))
            runners.append(runner)
        yield runners


@contextmanager
def _worker(contender: Contender, runtime: Runtime) -> Iterator[Runner]:
    command = [sys.executable, "-m", "tvm_qat.bench.worker"]
    with tempfile.TemporaryFile("w+") as errors:
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env=environment(runtime, contender.threads),
        ) as process:  # fmt: skip
            try:
                yield Runner(process, contender, errors)
            finally:
                process.kill()


def environment(runtime: Runtime | None, threads: int) -> dict[str, str]:
    """This process's variables, with the number of threads and what the runtime needs."""
    search = [path or os.getcwd() for path in sys.path]
    counts = {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    own = {name: value.format(threads=threads) for name, value in (runtime.env if runtime else ())}
    return {**os.environ, "PYTHONPATH": os.pathsep.join(search), **counts, **own}


def interleave(
    runners: Sequence[Runner], *, rounds: int, turn_seconds: float,
    progress: Callable[[float], None] = lambda _share: None,
) -> dict[str, list[Turn]]:  # fmt: skip
    """Turns of each runner by its label, the nth of all of them from the nth round.

    Goes on until `rounds` rounds have an undisturbed run of every runner, or patience is at its end.
    """
    counts = {r.label: _runs_in(turn_seconds, r.facts["warm_seconds"]) for r in runners}
    turns: dict[str, list[Turn]] = {runner.label: [] for runner in runners}
    clean = 0
    for done in range(1, _PATIENCE * rounds + 1):
        for runner in runners:
            turns[runner.label].append(runner.turn(counts[runner.label]))
            if runner.threads > 1:
                time.sleep(_SETTLE)
        clean += all(turns[runner.label][-1].undisturbed() for runner in runners)
        progress(max(clean / rounds, done / (_PATIENCE * rounds)))
        if clean == rounds:
            break
    return turns


def _runs_in(seconds: float, each: float) -> int:
    return max(1, min(_MOST_RUNS, int(seconds / max(each, 1e-7))))
