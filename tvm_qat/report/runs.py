"""Which kernels run each row, from what the lowered module says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.report.flat import FlatCall

Row = Mapping[str, Any]

VIEW = "view"
"""Stands for a kernel where nothing runs: the same bytes under another shape."""


@dataclass(frozen=True)
class Run:
    """node : the one that stands for the kernel's call. functions : symbols of all kernels of a row."""

    kernel: str
    isa: str = ""
    functions: tuple[str, ...] = ()
    node: str = ""

    def fields(self, name: str) -> dict[str, Any]:
        """Of the row called `name`."""
        into = self.node if self.node != name else ""
        return {"kernel": self.kernel, "isa": self.isa, "functions": self.functions, "fused_into": into}


def runs_of(
    groups: Mapping[str, Sequence[FlatCall]], workers: Mapping[str, FlatCall], chosen: Sequence[Row]
) -> dict[str, Run]:
    """By row. workers : the call that stands for each. chosen : `kernels.chosen_kernels`; none: no runs."""
    rows = {place: row for row in chosen for place in row["places"]}
    return {name: _run(workers[name], calls, rows) for name, calls in groups.items() if chosen}


def _run(worker: FlatCall, calls: Sequence[FlatCall], rows: Mapping[int, Row]) -> Run:
    places = dict.fromkeys([worker.place, *(call.place for call in calls)])
    functions = tuple(dict.fromkeys(rows[place]["function"] for place in places if place in rows))
    row = rows.get(worker.place)
    return Run(VIEW, "", functions) if row is None else Run(row["kernel"], row["isa"], functions, row["node"])


def views_of(calls: Sequence[FlatCall], chosen: Sequence[Row]) -> frozenset[FlatCall]:
    """Calls for which nothing runs."""
    run = {place for row in chosen for place in row["places"]}
    return frozenset(call for call in calls if chosen and call.place not in run)
