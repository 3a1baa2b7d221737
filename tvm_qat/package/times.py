"""Figures of a benchmark."""

from __future__ import annotations

import statistics


class Times(list[float]):
    """Seconds, in the order in which they were measured."""

    @property
    def median(self) -> float:
        return statistics.median(self)

    def summary(self) -> dict[str, float]:
        """median, mean, min, max and std, in seconds."""
        return {
            "median": self.median,
            "mean": statistics.fmean(self),
            "min": min(self),
            "max": max(self),
            "std": statistics.pstdev(self),
        }
