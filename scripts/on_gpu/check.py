"""The second half: every part in a process of its own, what differs, the times, and the table."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from on_gpu.parts import Description, Part

SCRIPTS = Path(__file__).resolve().parents[1]

_START = 120
"""Seconds in which a process says what the device is."""

Say = Callable[[str], object]


@dataclass
class Outcome:
    """faults : a line for each case that differs or did not end. times : as `work.timed_part` gives them."""

    part: Part
    faults: list[str] = field(default_factory=list)
    right: int = 0
    times: dict[str, Any] | None = None


class Missing(Exception):
    """The device, or what it needs, is not on this machine."""


def device_of(folder: Path) -> tuple[str | None, str | None]:
    """Name and architecture of the device, asked in another process: this one may hold another TVM."""
    with tempfile.TemporaryFile("w+") as errors:
        *found, last = _lines([sys.executable, "-m", "on_gpu.work", str(folder)], errors, _START)
        errors.seek(0)
        if last["ended"] != 0:
            raise Missing(_last_line(errors.read()))
    if "missing" in found[0]:
        raise Missing(found[0]["missing"])
    return found[0]["name"], found[0]["arch"]


def check(
    folder: Path, description: Description, parts: tuple[Part, ...], rounds: int, patience: float, say: Say
) -> list[Outcome]:
    """Run the parts; each line that is worth reading is said at once.

    patience : seconds without a finding after which a process is ended.
    """
    outcomes = []
    for part in parts:
        outcome = Outcome(part)
        _run(folder, outcome, rounds, patience)
        for fault in outcome.faults:
            say(f"{part.name}: {fault}")
        say(f"{part.name}: {outcome.right} of {len(part.cases)} have the bits of {_source(part)}")
        outcomes.append(outcome)
    return outcomes


def _source(part: Part) -> str:
    return "the CPU" if part.macs and part.group != "gemm" else "the reference"


def _run(folder: Path, outcome: Outcome, rounds: int, patience: float) -> None:
    """A process for the part; where it dies at a case, another for the cases after it."""
    cases, first = outcome.part.cases, 0
    while first < len(cases):
        begun, compared = first - 1, first
        with tempfile.TemporaryFile("w+") as errors:
            command = [
                sys.executable,
                "-m",
                "on_gpu.work",
                str(folder),
                outcome.part.name,
                str(first),
                str(rounds),
            ]
            for finding in _lines(command, errors, patience):
                begun = finding.get("begun", begun)
                compared += "wrong" in finding
                _note(outcome, finding)
            if finding["ended"] == 0:
                return
            errors.seek(0)
            reason = "took too long" if finding["ended"] is None else _last_line(errors.read())
        at_a_case = begun == compared
        place = cases[begun].name if at_a_case else "timing" if compared == len(cases) else "loading"
        outcome.faults.append(f"{place}: {reason}")
        first = begun + 1 if at_a_case else len(cases)


def _note(outcome: Outcome, finding: dict[str, Any]) -> None:
    if "wrong" in finding:
        name = outcome.part.cases[finding["case"]].name
        if finding["wrong"]:
            outcome.faults.append(f"{name}: {finding['wrong']} of {finding['of']} elements differ")
        else:
            outcome.right += 1
    if "times" in finding:
        outcome.times = finding["times"]


def _lines(command: list[str], errors: Any, patience: float) -> Iterator[dict[str, Any]]:
    """What the process finds, and last {"ended": code}, or None for one that said nothing for too long."""
    paths = filter(None, (str(SCRIPTS), os.environ.get("PYTHONPATH")))
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
    found: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_forward, args=(process.stdout, found), daemon=True)
    reader.start()
    try:
        while (line := found.get(timeout=patience)) is not None:
            yield json.loads(line)
        yield {"ended": process.wait(timeout=patience)}
    except (queue.Empty, subprocess.TimeoutExpired):
        yield {"ended": None}
    finally:
        process.kill()
        reader.join()
        process.wait()


def _forward(lines: Any, found: queue.Queue[str | None]) -> None:
    with lines:
        for line in lines:
            found.put(line)
    found.put(None)


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else "it ended without a word"
