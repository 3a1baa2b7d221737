"""Time as a straight line over work: seconds = per_unit * work + once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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
    """The line through (work, seconds) with the least squares of relative deviations.

    Relative, so that small models count as much as large ones: the sum over the points of
    ((per_unit * work + once) / seconds - 1)^2 is least. None for fewer than three points.
    """
    if len(points) < 3:
        return None
    work, seconds = (np.array(values, float) for values in zip(*points, strict=True))
    system = np.stack([work / seconds, 1.0 / seconds], axis=1)
    per_unit, once = np.linalg.lstsq(system, np.ones(len(points)), rcond=None)[0]
    return Line(float(per_unit), float(once))
