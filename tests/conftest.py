"""One thread and repeatable property tests: a run says the same thing twice. Which levels are slow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.gpu_machine import GpuMachine

for _library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_library, "1")

import pytest  # noqa: E402  (NumPy reads the variables when it is imported)
from hypothesis import settings  # noqa: E402

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=100)
settings.register_profile("search", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

_FOLDERS = {Path(__file__).parent / name for name in ("kernels", "arm")}
_BETWEEN = {"x86-64-v3", "x86-64-v4", "avxvnni", "alderlake", "avx2", "avx512bw", "dotprod"}
"""Levels between the plain and the best one of x86 and of ARM: rows of the same tables, the same code."""


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> GpuMachine:
    """One with an emulated GPU."""
    from tests.support.gpu_machine import make_machine

    return make_machine(tmp_path_factory.mktemp("driver"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What compiles for a level between is slow."""
    for item in items:
        if _FOLDERS & set(item.path.parents) and _BETWEEN & _parameters(item):
            item.add_marker(pytest.mark.slow)


def _parameters(item: pytest.Item) -> set[str]:
    callspec = getattr(item, "callspec", None)
    return {value for value in callspec.params.values() if isinstance(value, str)} if callspec else set()
