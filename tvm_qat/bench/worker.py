"""The process that is measured: one runtime, one model, one set of cores.

    python -m tvm_qat.bench.worker

talks in lines over stdin and stdout. The first line is JSON: {"engine": module, "model": file,
"inputs": npz, "threads": 1, "cores": [1], "first": false}; with "first" the process goes before others
where the system allows it. Every answer is one line of JSON; the first one comes
when the model has run for the first time. Then:

    run N      N timed inferences after some untimed ones: {"wall": [...], "cpu": [...], "lost": [...]}
    outputs F  writes the last results to the npz F: {}
    memory     {"peak": bytes, "base": bytes}; base is what was in use before the runtime was imported
    quit

A run's figures are seconds: `wall`; `cpu` of all threads together; and `lost`, how long its threads
were ready to run while another process held their core.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any, TextIO

import numpy as np

_WARM = 3
"""Runs before the first figure: caches, pages and lazily made code."""


def main() -> int:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints must not look like an answer
    return serve(sys.stdin, replies)


def serve(commands: TextIO, replies: TextIO) -> int:
    """Answer until `quit` or the end of the commands."""
    spec = json.loads(commands.readline())
    if spec["cores"]:
        os.sched_setaffinity(0, spec["cores"])
    if spec["first"]:
        _go_first()
    base = peak_memory()
    engine, facts = _started(spec)
    _say(replies, facts)
    gc.collect()
    gc.disable()
    for line in commands:
        word, _, rest = line.strip().partition(" ")
        if word == "run":
            _say(replies, timed_runs(engine, int(rest), spec["threads"]))
        elif word == "outputs":
            np.savez(rest, *engine.outputs())
            _say(replies, {})
        elif word == "memory":
            _say(replies, {"peak": peak_memory(), "base": base})
        else:
            break
    return 0


def timed_runs(engine: Any, count: int, threads: int) -> dict[str, Sequence[float]]:
    """The other runtimes had the caches in between: a tenth as many runs, one at least, go first.

    A single thread that does nothing but compute has lost what its wall time exceeds its CPU time
    by. Several threads wait for one another as well, so the kernel is asked about each of them; that
    takes longer, and would disturb runs of some microseconds.
    """
    for _ in range(1 + count // 10):
        engine.run()
    wall, cpu, lost = [], [], []
    clock, used = time.perf_counter, time.process_time
    for _ in range(count):
        before = _waited() if threads > 1 else 0.0
        busy = used()
        begin = clock()
        engine.run()
        end = clock()
        cpu.append(used() - busy)
        wall.append(end - begin)
        lost.append(_waited() - before if threads > 1 else max(0.0, wall[-1] - cpu[-1]))
    return {"wall": wall, "cpu": cpu, "lost": lost}


def peak_memory() -> int:
    """Most bytes that this process had in memory at once."""
    try:
        with open("/proc/self/status") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _started(spec: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    with np.load(spec["inputs"], allow_pickle=False) as data:
        inputs = {name: data[name] for name in data.files}
    made = importlib.import_module(spec["engine"]).Engine
    begin = time.perf_counter()
    engine = made(spec["model"], inputs, spec["threads"])
    loaded = time.perf_counter()
    engine.run()
    first = time.perf_counter()
    for _ in range(_WARM):
        begin_warm = time.perf_counter()
        engine.run()
        warm = time.perf_counter() - begin_warm
    return engine, {
        "version": engine.version,
        "load_seconds": loaded - begin,
        "first_seconds": first - loaded,
        "warm_seconds": warm,
    }


def _go_first() -> None:
    """Highest priority. Where Linux shares time by session first, the session needs it too."""
    os.setsid()
    with contextlib.suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write("-20")
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def _waited() -> float:
    """Seconds that all threads of this process have stood in the kernel's run queues.

    Where the kernel does not say (it is Linux's schedstat), every forced switch counts a second:
    such runs are then dropped whatever they took.
    """
    try:
        tasks = os.listdir("/proc/self/task")
        return 1e-9 * sum(map(_queued, tasks))
    except OSError:
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw)


def _queued(task: str) -> int:
    with open(f"/proc/self/task/{task}/schedstat", "rb") as file:
        return int(file.read().split()[1])


def _say(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
