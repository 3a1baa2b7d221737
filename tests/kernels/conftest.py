"""Which instruction sets the default run leaves to `.ci/run`."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_BETWEEN = {"x86-64-v3", "x86-64-v4", "avxvnni"}
"""Levels beside the plain one and AVX-512 VNNI: rows of the same table, served by the same code."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _HERE in item.path.parents and _BETWEEN & _parameters(item):
            item.add_marker(pytest.mark.slow)


def _parameters(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    return {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
