"""Time as a straight line over work: seconds = per_unit * work + once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np


@dataclass(frozen=True)
class Line:
    """per_unit : seconds for one unit of work. once : seconds that any call takes."""

    per_unit: float
    once: float

    def at(self, work: float) -> float:
        return self.per_unit * work + self.once

    def deviation(self, work: float, seconds: float) -> float:
        """How far off the line, as a share of it: 0.1 for ten percent slower."""
        return seconds / self.at(work) - 1.0


def fit(points: Sequence[tuple[float, float]]) -> Line | None:
    """The line whose largest deviation from any of the (work, seconds) is least.

    No other line has all points within a smaller share of itself (a Chebyshev approximation under
    the weights 1 / seconds). Three points that lie equally far off determine it, not all on one
    side; of the lines that any three determine so, it is the one that stays nearest to all.
    None for fewer than three points, or one amount of work.
    """
    if len(points) < 3:
        return None
    unit = max(work for work, _ in points)
    rows = np.array([(work / unit / seconds, 1.0 / seconds) for work, seconds in points])
    triples = np.array(list(combinations(range(len(points)), 3)))
    candidates = []
    for sides in ((1, -1, 1), (1, 1, -1), (-1, 1, 1)):
        signs = np.broadcast_to(np.array(sides, float), triples.shape)[..., None]
        system = np.concatenate([rows[triples], signs], axis=2)
        system = system[np.abs(np.linalg.det(system)) > 0]
        candidates.append(np.linalg.solve(system, np.ones((len(system), 3, 1)))[:, :2, 0])
    lines = np.concatenate(candidates)
    if not len(lines):
        return None
    sizes = np.max(np.abs(lines @ rows.T - 1.0), axis=1)
    (per_unit, once), size = lines[np.argmin(sizes)], np.min(sizes)
    # line / seconds now lies in [1 - size, 1 + size]; seconds / line shall.
    centred = 1.0 - size * size
    return Line(float(per_unit / unit / centred), float(once / centred))
