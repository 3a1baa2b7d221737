"""From raw timings to figures that can be trusted on a machine that others use too.

A run is *disturbed* if another process held one of its cores meanwhile. On one thread that shows
as wall time above CPU time; on several, where a thread may also wait for the others, as a switch
that the thread did not ask for. Disturbed runs are dropped and counted.

Clock rates and neighbours change within minutes, so times taken apart do not compare. Runtimes run
in turns, A B C A B C; a *round* is one turn of each. A ratio is formed within each round, of the
medians of its two turns, and the median of these ratios is quoted with its quartiles.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

SLACK = 1.03
"""Wall time may exceed CPU time by this factor: interrupts, and the reading of the clocks."""
GRAIN = 5e-6
"""And by these seconds, which tiny models need."""


@dataclass(frozen=True)
class Turn:
    """Runs in a row, in seconds; cpu adds up all threads; switches : forced ones, of each run."""

    wall: tuple[float, ...]
    cpu: tuple[float, ...]
    switches: tuple[int, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Turn:
        return cls(tuple(data["wall"]), tuple(data["cpu"]), tuple(data["switches"]))

    def undisturbed(self, threads: int) -> list[float]:
        """Wall times of the runs that had their cores to themselves."""
        if threads > 1:
            return [wall for wall, forced in zip(self.wall, self.switches, strict=True) if forced == 0]
        pairs = zip(self.wall, self.cpu, strict=True)
        return [wall for wall, cpu in pairs if wall <= SLACK * cpu + GRAIN]


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


def figures(turns: Sequence[Turn], threads: int) -> Figures:
    kept = sorted(wall for turn in turns for wall in turn.undisturbed(threads))
    total = sum(len(turn.wall) for turn in turns)
    cpu = statistics.median(seconds for turn in turns for seconds in turn.cpu)
    if not kept:
        return Figures(None, None, None, cpu, 0, total)
    tenth = len(kept) // 10
    return Figures(statistics.median(kept), kept[tenth], kept[-1 - tenth], cpu, len(kept), total - len(kept))


def ratio(ours: Sequence[Turn], theirs: Sequence[Turn], threads: int) -> Ratio:
    """Of turns of the same rounds. Rounds in which one of the two has no undisturbed run do not count."""
    pairs = list(zip(ours, theirs, strict=True))
    clean = [(a.undisturbed(threads), b.undisturbed(threads)) for a, b in pairs]
    each = [statistics.median(a) / statistics.median(b) for a, b in clean if a and b]
    cpu = statistics.median(statistics.median(a.cpu) / statistics.median(b.cpu) for a, b in pairs)
    if not each:
        return Ratio(None, None, None, 0, cpu)
    low, _, high = statistics.quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Ratio(statistics.median(each), low, high, len(each), cpu)
