"""What goes to which stream: results to stdout, progress to stderr, JSON alone if asked for."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
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
def progress() -> Iterator[Callable[[str, float], None]]:
    """A callback (stage, share done before it) that shows long work on stderr."""
    if not sys.stderr.isatty():
        yield _plain()
        return
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda stage, share: bar.update(task, description=stage, completed=share)


def _plain() -> Callable[[str, float], None]:
    last = [time.monotonic()]

    def show(stage: str, share: float) -> None:
        if share < 1.0 and time.monotonic() - last[0] >= _PATIENCE:
            print(f"tvm-qat: {stage} ({share:.0%})", file=sys.stderr, flush=True)
            last[0] = time.monotonic()

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
