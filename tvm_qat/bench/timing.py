"""From raw timings to figures that can be trusted on a machine that others use too.

A run is *disturbed* if its threads lost more than a small share of its time because other processes
held their cores. Disturbed runs are dropped and counted.

Clock rates and neighbours change within minutes, so times taken apart do not compare. Runtimes run
in turns, A B C A B C; a *round* is one turn of each. A ratio is formed within each round, of the
medians of its two turns, and the median of these ratios is quoted with its quartiles.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SHARE = 0.03
"""Of a run's wall time that may be lost: to interrupts, and to the reading of the clocks."""
GRAIN = 5e-6
"""Seconds that may be lost besides, which tiny models need."""


@dataclass(frozen=True)
class Turn:
    """Runs in a row, in seconds. cpu : of all threads together. lost : see `worker`."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    lost: tuple[float, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Turn:
        return cls(tuple(data["wall"]), tuple(data["cpu"]), tuple(data["lost"]))

    def undisturbed(self) -> list[float]:
        """Wall times of the runs that had their cores to themselves."""
        pairs = zip(self.wall, self.lost, strict=True)
        return [wall for wall, lost in pairs if lost <= SHARE * wall + GRAIN]


@dataclass(frozen=True)
class Figures:
    """Seconds over all undisturbed runs (None if there are none); cpu over all runs."""

    median: float | None
    p10: float | None
    p90: float | None
    cpu: float
    kept: int
    dropped: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Ratio:
    """ours / theirs: median and quartiles of the rounds; None where every round was disturbed.

    cpu : the same of CPU times, disturbed runs included: less exact, but there on a busy machine.
    """

    median: float | None
    low: float | None
    high: float | None
    rounds: int
    cpu: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def figures(turns: Sequence[Turn]) -> Figures:
    kept = sorted(wall for turn in turns for wall in turn.undisturbed())
    total = sum(len(turn.wall) for turn in turns)
    cpu = statistics.median(seconds for turn in turns for seconds in turn.cpu)
    if not kept:
        return Figures(None, None, None, cpu, 0, total)
    tenth = len(kept) // 10
    return Figures(statistics.median(kept), kept[tenth], kept[-1 - tenth], cpu, len(kept), total - len(kept))


def ratio(ours: Sequence[Turn], theirs: Sequence[Turn]) -> Ratio:
    """Of turns of the same rounds. Rounds in which one of the two has no undisturbed run do not count."""
    pairs = list(zip(ours, theirs, strict=True))
    clean = [(a.undisturbed(), b.undisturbed()) for a, b in pairs]
    each = [statistics.median(a) / statistics.median(b) for a, b in clean if a and b]
    cpu = statistics.median(statistics.median(a.cpu) / statistics.median(b.cpu) for a, b in pairs)
    if not each:
        return Ratio(None, None, None, 0, cpu)
    low, _, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Ratio(statistics.median(each), low, high, len(each), cpu)
