"""Names in messages and in TVM's text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from tvm_qat.errors import UnsupportedError, located

_SHOWN = 5


def identifier(name: str, taken: set[str]) -> str:
    """A name that TVM can print, distinct from those in `taken`, to which it is added."""
    plain = re.sub(r"\W", "_", name, flags=re.ASCII) or "input"
    plain = f"input_{plain}" if plain[0].isdigit() else plain
    unique = plain
    while unique in taken:
        unique = f"{plain}_{len(taken)}"
    taken.add(unique)
    return unique


def without_translation(missing: Mapping[str, Sequence[str]], file: str) -> UnsupportedError:
    """All operators that an importer does not know, at once.

    missing : names of nodes by kind of operator.
    """
    kinds = ", ".join(f"{kind} ({_some(names)})" for kind, names in sorted(missing.items()))
    reason = f"operators without a translation: {kinds}"
    return UnsupportedError(located(reason, file=file, remedy="replace them, or cut the model before them"))


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown} and {len(names) - _SHOWN} more"
