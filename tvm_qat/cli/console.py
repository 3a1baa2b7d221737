"""What goes to which stream: results to stdout, progress to stderr, JSON alone if asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

_PATIENCE = 3.0
"""Seconds of silence before stages are named on a stderr that is no terminal."""
_UNLIMITED = 10_000


def out() -> Console:
    """Stdout; on a terminal as wide as that is, else as wide as the text needs."""
    width = None if sys.stdout.isatty() else _UNLIMITED
    return Console(file=sys.stdout, highlight=False, width=width)


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


@contextmanager
def progress(remaining: bool = False) -> Iterator[Callable[[str, float], None]]:
    """A callback (stage, share done before it) that shows long work on stderr.

    remaining : also show how long the rest will take.
    """
    if not sys.stderr.isatty():
        yield _plain(remaining)
        return
    columns: list[ProgressColumn] = [TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn()]
    columns += [TextColumn("left"), TimeRemainingColumn()] if remaining else []
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


def _plain(remaining: bool) -> Callable[[str, float], None]:
    begin = time.monotonic()
    last = [begin]

    def show(stage: str, share: float) -> None:
        now = time.monotonic()
        if share < 1.0 and now - last[0] >= _PATIENCE:
            left = f", {(now - begin) * (1 / share - 1):.0f} s left" if remaining and share else ""
            print(f"tvm-qat: {stage} ({share:.0%}{left})", file=sys.stderr, flush=True)
            last[0] = now

    return show


def table(title: str | None, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> Table:
    """columns: (header, "left" or "right")."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for header, side in columns:
        made.add_column(header, justify="right" if side == "right" else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    return made


def in_bytes(count: int) -> str:
    """12.3 KB: powers of 1000, as storage is sold."""
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def in_plain_loops(totals: Mapping[str, Any]) -> str:
    """What to know of a target that has no instruction for sums of products; empty for others.

    totals : of `inspect`; packages of earlier versions do not hold it.
    """
    if totals.get("instruction") != "" or not totals["int8_macs"]:
        return ""
    return (
        "plain loops, which are slow: the target has no instruction that adds products of bytes; "
        "--target native names this machine"
    )
