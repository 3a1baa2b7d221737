"""Reads fields of a JSON document strictly: a wrong type is one clear sentence, never a guess."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tvm_qat.errors import InputError

Entry = Mapping[str, Any]


def document(path: Path) -> Entry:
    """The JSON object that a file holds; its keys are distinct and its numbers finite."""
    try:
        content = path.read_text(encoding="utf-8-sig")
        found = json.loads(content, object_pairs_hook=_distinct, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise InputError("is not a JSON object")
    return found


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InputError(f"{key!r} stands there twice")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise InputError(f"{name} is no number")


def entry(value: Any) -> Entry:
    if not isinstance(value, dict):
        raise InputError(f"{_shown(value)} is not an object")
    return value


def text(fields: Entry, key: str, default: str | None = None) -> str:
    value = fields.get(key, default)
    if not isinstance(value, str):
        raise InputError(f"{key} is {_shown(value)}, not a string" if key in fields else f"it has no {key}")
    return value


def whole(fields: Entry, key: str) -> int:
    if key not in fields:
        raise InputError(f"it has no {key}")
    return _whole(fields[key], key)


def flag(fields: Entry, key: str) -> bool:
    """true or false; older versions write "True" and "False"."""
    value = fields.get(key, False)
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if not isinstance(value, bool):
        raise InputError(f"{key} is {_shown(value)}, not true or false")
    return value


def reals(fields: Entry, key: str) -> list[float]:
    """A number or a list of them, nested or not, in order."""
    if key not in fields:
        raise InputError(f"it has no {key}")
    return [_real(value, key) for value in _flat(fields[key], key)]


def wholes(fields: Entry, key: str, count: int) -> list[int]:
    """The same of whole numbers (also written `3.0`); zeros where the key is missing, as many as `count`."""
    if key not in fields:
        return [0] * count
    found = [_whole(value, key) for value in _flat(fields[key], key)]
    if len(found) not in (1, count):
        raise InputError(f"{key} has {len(found)} values for {count} scales")
    return found * count if len(found) == 1 else found


def _flat(value: Any, key: str) -> list[Any]:
    if not isinstance(value, list):
        return [value]
    if not value:
        raise InputError(f"{key} is an empty list")
    return [part for inner in value for part in _flat(inner, key)]


def _real(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{key} is {_shown(value)}, not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{key} is not finite")
    return number


def _whole(value: Any, key: str) -> int:
    number = _real(value, key)
    if number != int(number) or abs(number) > 1 << 32:
        raise InputError(f"{key} is {_shown(value)}, not a whole number of 32 bits")
    return int(number)


def _shown(value: Any) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
