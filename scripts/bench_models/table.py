"""All rows of the catalogue, each beside its bars."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bench_models.catalogue import Row
from tvm_qat.bench.compare import Comparison, Options, compare
from tvm_qat.bench.plot import Bar, bars
from tvm_qat.cli import console
from tvm_qat.errors import InputError


@dataclass(frozen=True)
class Verdict:
    """One ratio beside its bar; `met` is None where every round was disturbed."""

    row: str
    runtime: str
    ratio: float | None
    low: float | None
    high: float | None
    limit: float

    @property
    def met(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= self.limit


def measure(
    rows: Sequence[Row], folder: Path, tflite: Path | None, options: Options
) -> list[tuple[Row, Comparison]]:
    """What could be measured; a row that cannot is named on stderr and costs no other row."""
    found = []
    for row in rows:
        print(f"bench: {row.name}", file=sys.stderr, flush=True)
        model, inputs = row.files(folder)
        try:
            comparison = compare(str(model), _options(row, inputs, tflite, options))
        except InputError as error:
            print(f"bench: {row.name}: {error}", file=sys.stderr, flush=True)
            continue
        found.append((row, comparison))
        print(f"bench: {row.name}: {_short(comparison)}", file=sys.stderr, flush=True)
    return found


def _options(row: Row, inputs: Path, tflite: Path | None, options: Options) -> Options:
    with np.load(inputs, allow_pickle=False) as data:
        arrays = {name: np.concatenate([data[name]] * row.batch) for name in data.files}
    shapes = {name: list(array.shape) for name, array in arrays.items()} if row.batch > 1 else {}
    file = str(tflite) if row.tflite and tflite is not None else None
    return replace(options, inputs=arrays, input_shapes=shapes, tflite=file)


def _short(found: Comparison) -> str:
    ratios = (
        f"{row.label} {row.ratio.median if row.ratio.median is not None else row.ratio.cpu:.3f}"
        for row in found.rows
        if row.ratio is not None
    )
    return ", ".join(ratios)


def verdicts(row: Row, found: Comparison) -> list[Verdict]:
    """One for each bar whose runtime was measured."""
    ratios = {each.label: each.ratio for each in found.rows if each.ratio is not None}
    return [
        Verdict(row.name, name, ratios[name].median, ratios[name].low, ratios[name].high, limit)
        for name, limit in row.limits
        if name in ratios
    ]


def show(found: Sequence[tuple[Row, Comparison]]) -> None:
    columns = [
        ("model", "left"), ("runtime", "left"), ("ours is", "right"), ("quartiles", "right"),
        ("bar", "right"), ("", "left"), ("by CPU time", "right"), ("ours ms", "right"),
        ("theirs ms", "right"), ("dropped", "right"), ("agrees", "right"), ("memory", "right"),
    ]  # fmt: skip
    lines = [line for row, each in found for line in _lines(row, each)]
    console.out().print(console.table(None, columns, lines))
    print()
    columns = [
        ("model", "left"), ("compiled s", "right"), ("package", "right"), ("of constants", "right"),
        ("our memory", "right"), ("onnxruntime's", "right"),
    ]  # fmt: skip
    console.out().print(console.table(None, columns, [_costs(*pair) for pair in found]))
    machine = found[-1][1].machine
    print(f"\n{machine['processor']}, {machine['threads']} thread(s), {machine['rounds']} rounds;", end=" ")
    print("ours is: median over the rounds of our time / theirs; dropped: runs that other work disturbed")


def _lines(row: Row, found: Comparison) -> list[list[str]]:
    ours = found.rows[0]
    lines = []
    limits = dict(row.limits)
    for other in found.rows[1:]:
        ratio, limit = other.ratio, limits.get(other.label)
        if ratio is None:
            continue
        clear = ratio.median is not None
        lines.append([
            row.name, other.label, f"{ratio.median:.3f}" if clear else "disturbed",
            f"{ratio.low:.3f}-{ratio.high:.3f}" if clear else "", f"{limit:.2f}" if limit else "",
            _word(ratio.median, limit), f"{ratio.cpu:.3f}", _ms(ours.figures.median),
            _ms(other.figures.median), str(ours.figures.dropped + other.figures.dropped),
            "" if other.agreement is None else f"{other.agreement:.3f}", console.in_bytes(other.memory),
        ])  # fmt: skip
    return lines


def _word(ratio: float | None, limit: float | None) -> str:
    if ratio is None or limit is None:
        return ""
    return "met" if ratio <= limit else "MISSED"


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.4g}"


def _costs(row: Row, found: Comparison) -> list[str]:
    memory = {each.label: each.memory for each in found.rows}
    other = memory.get("onnxruntime")
    return [
        row.name, f"{found.compile_seconds:.1f}", console.in_bytes(found.package_bytes),
        f"{found.package_bytes / found.weight_bytes:.2f} x", console.in_bytes(found.rows[0].memory),
        console.in_bytes(other) if other is not None else "",
    ]  # fmt: skip


def document(found: Sequence[tuple[Row, Comparison]]) -> dict[str, Any]:
    """Everything that was measured, and the bars."""
    return {
        "rows": [
            {
                "name": row.name,
                "limits": dict(row.limits),
                "met": {verdict.runtime: verdict.met for verdict in verdicts(row, each)},
                **each.to_json(),
            }
            for row, each in found
        ]
    }


def plot(found: Sequence[tuple[Row, Comparison]]) -> str:
    made = [
        Bar(f"{v.row} / {v.runtime}", v.ratio, f"{v.ratio:.2f} (bar {v.limit:.2f})", bool(v.met), v.low,
            v.high, v.limit)
        for row, each in found
        for v in verdicts(row, each)
        if v.ratio is not None
    ]  # fmt: skip
    return bars("Time of one inference, as a multiple of the other runtime's (red: the bar)", made)
