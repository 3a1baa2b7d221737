"""What more threads bring: one package, one process for each number of threads, in turns."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench_models.catalogue import Row
from tvm_qat import compiler
from tvm_qat.bench.engines import OURS
from tvm_qat.bench.runners import Contender, interleave, started
from tvm_qat.bench.timing import Ratio, ratio
from tvm_qat.cli import console


def measure(row: Row, folder: Path, counts: Sequence[int], *, rounds: int, first: bool) -> dict[int, Ratio]:
    """Time on one thread / time on each number of `counts`."""
    model, inputs = row.files(folder)
    with tempfile.TemporaryDirectory(prefix="tvm_qat_threads_") as name:
        package = compiler.compile(str(model), "native")
        library = Path(name) / "mod.so"
        library.write_bytes(package.members()["mod.so"])
        with np.load(inputs, allow_pickle=False) as data:
            package.run(dict(data))
        made = [
            Contender(str(count), OURS, os.fspath(library), os.fspath(inputs), count)
            for count in (1, *counts)
        ]
        with started(made, first=first) as runners:
            turns = interleave(runners, rounds=rounds, turn_seconds=0.15)
    return {count: ratio(turns["1"], turns[str(count)]) for count in counts}


def show(row: Row, found: dict[int, Ratio]) -> None:
    columns = [("model", "left"), ("threads", "right"), ("times faster", "right"), ("quartiles", "right")]
    lines = [
        [
            row.name, str(count),
            "disturbed" if each.median is None else f"{each.median:.2f}",
            "" if each.median is None else f"{each.low:.2f}-{each.high:.2f}",
        ]
        for count, each in found.items()
    ]  # fmt: skip
    console.out().print(console.table(None, columns, lines))


def document(row: Row, found: dict[int, Ratio]) -> dict[str, Any]:
    return {"row": row.name, "speedup": {str(count): each.to_json() for count, each in found.items()}}
