"""Does cost grow with the work? Time against multiply-accumulates, over widths and image sizes.

Every package stays loaded in a process of its own, and all take turns, so that a slow minute of the
machine falls on all of them. The line that no point above FROM lies far from is sought, and what is
quoted is how far each of them lies off it.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench_models.catalogue import Network
from tvm_qat import compiler
from tvm_qat.bench.engines import OURS
from tvm_qat.bench.line import Line, fit
from tvm_qat.bench.onnx_shapes import with_shapes
from tvm_qat.bench.plot import points
from tvm_qat.bench.runners import Contender, interleave, started
from tvm_qat.bench.timing import figures
from tvm_qat.cli import console

WIDTHS = (0.25, 0.5, 1.0, 2.0)
SIZES = (96, 160, 224, 320, 448)
FROM = 50e6
"""Multiply-accumulates below which calls and borders rule."""
TOLERANCE = 0.10


@dataclass(frozen=True)
class Point:
    """seconds : median; of CPU time where all runs were disturbed."""

    family: str
    width: float
    size: int
    macs: int
    seconds: float
    disturbed: bool


def networks(family: str, widths: Sequence[float] = WIDTHS) -> list[Network]:
    return [Network(f"{family}-w{width:g}", family, 224, width) for width in widths]


def model_of(network: Network, folder: Path) -> Path:
    return folder / f"{network.name}_u8s8.onnx"


def measure(
    family: str, folder: Path, *, widths: Sequence[float], sizes: Sequence[int], rounds: int, first: bool
) -> list[Point]:
    """Compile every width for every size, and time all of them in turns on one thread."""
    with tempfile.TemporaryDirectory(prefix="tvm_qat_scaling_") as name:
        made, work = [], {}
        for network in networks(family, widths):
            for size in sizes:
                label = f"{network.width:g}/{size}"
                print(f"bench: compiling {family} {label}", file=sys.stderr, flush=True)
                shaped = with_shapes(
                    str(model_of(network, folder)), {"x": [1, 3, size, size]}, Path(name) / "model.onnx"
                )
                package = compiler.compile(shaped, "native")
                library, inputs = Path(name) / f"{len(made)}.so", Path(name) / f"{len(made)}.npz"
                library.write_bytes(package.members()["mod.so"])
                np.savez(inputs, **package.random_inputs())
                made.append(Contender(label, OURS, os.fspath(library), os.fspath(inputs)))
                work[label] = int(package.totals["macs"])
        with started(made, first=first) as runners:
            turns = interleave(runners, rounds=rounds, turn_seconds=0.1)
    found = []
    for label, macs in work.items():
        width, size = label.split("/")
        taken = figures(turns[label])
        seconds = taken.cpu if taken.median is None else taken.median
        found.append(Point(family, float(width), int(size), macs, seconds, taken.median is None))
    return found


def fitted(found: Sequence[Point]) -> Line | None:
    return fit([(point.macs, point.seconds) for point in found if point.macs >= FROM])


def deviations(found: Sequence[Point], line: Line | None) -> dict[Point, float]:
    """Of the points above FROM, as shares of the line."""
    if line is None:
        return {}
    return {p: line.deviation(p.macs, p.seconds) for p in found if p.macs >= FROM}


def show(found: Sequence[Point]) -> None:
    line = fitted(found)
    off = deviations(found, line)
    columns = [
        ("network", "left"), ("width", "right"), ("size", "right"), ("M MACs", "right"), ("ms", "right"),
        ("GOPS", "right"), ("off the line", "right"),
    ]  # fmt: skip
    rows = [
        [
            p.family, f"{p.width:g}", str(p.size), f"{p.macs / 1e6:.1f}", f"{1e3 * p.seconds:.3f}",
            f"{2e-9 * p.macs / p.seconds:.0f}", f"{off[p]:+.1%}" if p in off else "",
        ]
        for p in sorted(found, key=lambda p: p.macs)
    ]  # fmt: skip
    console.out().print(console.table(None, columns, rows))
    if line is None:
        print("\ntoo few points for a line")
        return
    worst = max(map(abs, off.values()))
    print(f"\nline: {2e-9 / line.per_unit:.0f} GOPS and {1e6 * line.once:.0f} us a call")
    print(
        f"{len(off)} points above {FROM / 1e6:.0f} M: at most {worst:.1%} off it,"
        f" {'within' if worst <= TOLERANCE else 'NOT within'} {TOLERANCE:.0%}"
    )
    if any(p.disturbed for p in found):
        print("some points are CPU times: other work disturbed all of their runs")


def document(found: Sequence[Point]) -> dict[str, Any]:
    line = fitted(found)
    off = deviations(found, line)
    return {
        "points": [{**asdict(point), "deviation": off.get(point)} for point in found],
        "line": asdict(line) if line else None,
    }


def plot(found: Sequence[Point]) -> str:
    widths, sizes = (sorted({getattr(p, name) for p in found}) for name in ("width", "size"))
    series = [
        (f"width {width:g}", [(p.macs / 1e6, 1e3 * p.seconds) for p in found if p.width == width])
        for width in widths
    ]
    line = fitted(found)
    drawn = (line.per_unit * 1e9, line.once * 1e3) if line is not None else None
    title = f"{found[0].family}: time against work, image sizes {sizes[0]} to {sizes[-1]}"
    return points(title, "million multiply-accumulates", "milliseconds", series, drawn)
