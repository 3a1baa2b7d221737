"""What was found, as JSON and as a table for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from on_gpu.check import Outcome

OURS = "ours"


@dataclass(frozen=True)
class Peak:
    """tops : 10^12 int8 operations a second, two to a multiply-accumulate. by : what reached it, on what."""

    tops: float
    by: str


def peak_of(outcomes: Sequence[Outcome]) -> Peak | None:
    """The best product, a peer's or ours; None where none was timed."""
    found = [
        (_tops(one, seconds), f"{name}, {one.part.name}")
        for one in outcomes
        if one.part.group == "gemm" and one.times
        for name, seconds in one.times["seconds"].items()
    ]
    return Peak(*max(found)) if found else None


def document(outcomes: Sequence[Outcome], about: dict[str, Any]) -> dict[str, Any]:
    """about : of the machine and of what ran on it."""
    peak = peak_of(outcomes)
    return {
        **about,
        "parts": [
            {"name": one.part.name, "cases": len(one.part.cases), "right": one.right, "faults": one.faults}
            for one in outcomes
        ],
        "int8_peak": {"tops": peak.tops, "by": peak.by} if peak else None,
        "times": [_row(one, peak) for one in outcomes if one.times],
    }


def _row(one: Outcome, peak: Peak | None) -> dict[str, Any]:
    """Quartiles in seconds; `ratio` is the peer's time by ours, formed in each round."""
    assert one.times is not None
    seconds: dict[str, list[float]] = one.times["seconds"]
    ours = np.array(seconds[OURS])
    ratios = {name: np.array(other) / ours for name, other in seconds.items() if name != OURS}
    return {
        "name": one.part.name,
        "right": not one.faults,
        "rounds": len(ours),
        "seconds": {name: _quartiles(values) for name, values in seconds.items()},
        "ratio": {name: _quartiles(values) for name, values in ratios.items()},
        "tops": _tops(one, ours),
        "share_of_peak": _tops(one, ours) / peak.tops if peak else None,
        "notes": [note for note in one.times["notes"] if note],
    }


def _tops(one: Outcome, seconds: Sequence[float]) -> float:
    return 2e-12 * one.part.macs / float(np.median(seconds))


def _quartiles(values: Sequence[float]) -> list[float]:
    """First quartile, median, third."""
    return [float(x) for x in np.quantile(np.asarray(values), (0.25, 0.5, 0.75))]


def markdown(found: dict[str, Any]) -> str:
    """A section for README; medians, with quartiles in brackets."""
    cases, right = (sum(part[key] for part in found["parts"]) for key in ("cases", "right"))
    lines = [f"**{found['machine']}** ({_versions(found)}): {right} of {cases} cases have the right bits."]
    if found["times"]:
        head = ["", "ours, ms", "beside", "its ms", "its time by ours", "int8 TOPS", "of the peak"]
        lines += ["", _line(head), "|---" * len(head) + "|", *map(_shown, found["times"])]
        lines += ["", "Medians (quartiles) of interleaved rounds. " + _peak_text(found["int8_peak"]), ""]
        lines += [f"- {row['name']}: {note}" for row in found["times"] for note in row["notes"]]
    return "\n".join(lines).rstrip() + "\n"


def _versions(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found["versions"].items() if version)


def _peak_text(peak: dict[str, Any] | None) -> str:
    if peak is None:
        return "No int8 product was timed, so the peak is not known."
    return f"The int8 peak is the best product measured: {peak['tops']:.4g} TOPS ({peak['by']})."


def _shown(row: dict[str, Any]) -> str:
    peer = next(iter(row["ratio"]), None)
    beside = [peer, _ms(row["seconds"][peer]), _range(row["ratio"][peer])] if peer else ["", "", ""]
    share = row["share_of_peak"]
    figures = [f"{row['tops']:.3g}", "" if share is None else f"{100 * share:.3g} %"]
    name = row["name"] if row["right"] else f"{row['name']} (wrong bits)"
    return _line([name, _ms(row["seconds"][OURS]), *beside, *figures])


def _ms(quartiles: Sequence[float]) -> str:
    return _range([1e3 * value for value in quartiles])


def _range(quartiles: Sequence[float]) -> str:
    low, middle, high = quartiles
    return f"{middle:.3g} ({low:.3g}-{high:.3g})"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
