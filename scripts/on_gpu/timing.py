"""Contenders take turns; a figure is the mean of as many runs in a row as take `SHORTEST` seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SHORTEST = 0.05


@dataclass(frozen=True)
class Contender:
    """start() begins a run, finish() waits for all that were begun. note : how it was made to run."""

    name: str
    start: Callable[[], object]
    finish: Callable[[], object]
    note: str = ""


def timed(contenders: Sequence[Contender], rounds: int) -> dict[str, list[float]]:
    """All take turns, so that clocks and heat are the same for all; each is warm before the first round."""
    counts = [_count(one) for one in contenders]
    seconds: dict[str, list[float]] = {one.name: [] for one in contenders}
    for _ in range(rounds):
        for one, count in zip(contenders, counts, strict=True):
            seconds[one.name].append(_seconds(one, count))
    return seconds


def _count(one: Contender) -> int:
    """Runs that take `SHORTEST` at least."""
    _seconds(one, 3)
    count = 1
    while (taken := _seconds(one, count) * count) < SHORTEST:
        count = max(2 * count, int(SHORTEST / max(taken, 1e-6)))
    return count


def _seconds(one: Contender, count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        one.start()
    one.finish()
    return (time.perf_counter() - begun) / count
