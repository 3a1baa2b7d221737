"""`layers.json`: what `inspect` shows of a package. Read when it is asked for; running needs none of it.

Many tensors lie on one grid, and grids of channels are long: each is written once, its numbers as bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tvm_qat.errors import PackageError, located

MEMBER = "layers.json"

_TENSORS = ("inputs", "weights", "outputs")
_LONG = 8
"""Lists of more numbers are written as bytes."""


@dataclass(frozen=True)
class Details:
    """layers, removed : rows as `Report.to_json` makes them."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    removed: list[dict[str, Any]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        grids: dict[str, int] = {}
        rows = [{**row, **{kind: list(row[kind]) for kind in _TENSORS}} for row in self.layers]
        for tensors, place in _tensors(rows):
            known = tensors[place]["qparams"]
            text = json.dumps(_packed(known)) if known is not None else None
            number = None if text is None else grids.setdefault(text, len(grids))
            tensors[place] = {**tensors[place], "qparams": number}
        document = {"grids": [json.loads(text) for text in grids], "layers": rows, "removed": self.removed}
        return (json.dumps(document, ensure_ascii=False) + "\n").encode()


def from_bytes(raw: bytes, file: str) -> Details:
    """Raises PackageError."""
    try:
        document = json.loads(raw)
        grids = [_unpacked(grid) for grid in document["grids"]]
        rows = list(document["layers"])
        for tensors, place in _tensors(rows):
            number = tensors[place]["qparams"]
            tensors[place]["qparams"] = None if number is None else grids[number]
        return Details(rows, list(document["removed"]))
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RecursionError) as error:
        raise PackageError(located(f"has a malformed {MEMBER}: {error!r}", file=file)) from None


def _tensors(rows: list[dict[str, Any]]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """(list, place in it) of every tensor of the rows."""
    for row in rows:
        for kind in _TENSORS:
            yield from ((row[kind], place) for place in range(len(row[kind])))


def _packed(grid: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _bytes(value) if isinstance(value, list) else value for name, value in grid.items()}


def _bytes(values: list[Any]) -> Any:
    array = np.asarray(values)
    if array.size <= _LONG:
        return values
    narrow = array.astype("<f4" if array.dtype.kind == "f" else "<i4")
    exact = narrow if np.array_equal(narrow.astype(array.dtype), array) else array.astype("<f8")
    return {"dtype": exact.dtype.str, "bytes": base64.b64encode(exact.tobytes()).decode()}


def _unpacked(grid: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _numbers(value) if isinstance(value, Mapping) else value for name, value in grid.items()}


def _numbers(value: Mapping[str, Any]) -> list[Any]:
    array = np.frombuffer(base64.b64decode(value["bytes"], validate=True), np.dtype(value["dtype"]))
    wide = array.astype(np.float64) if array.dtype.kind == "f" else array
    return list(wide.tolist())
