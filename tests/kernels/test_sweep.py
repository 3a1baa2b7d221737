"""Every kernel on every instruction set: what is drawn equals the reference.

AVX-VNNI is run in its AVX-512VL encoding, which computes the same: the kernels do not know the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.kernels import harness
from tests.kernels.drawn_cases import drawn_linear
from tests.kernels.drawn_others import drawn_others
from tests.kernels.harness import TARGETS, check_exact, module_of
from tvm_qat.kernels import chosen_kernels, lower, table
from tvm_qat.kernels.isa import DOT_PRODUCTS

_AVXVNNI = next(isa for isa in DOT_PRODUCTS if isa.name == "avxvnni")
CPUS = {"plain": TARGETS["plain"], **harness.LEVELS}
LEVELS = [*CPUS, "avxvnni"]
SWEPT = [pytest.param("plain", marks=pytest.mark.slow), *LEVELS[1:]]
"""On the plain level `test_exact.py` has already compiled every operator."""


@contextmanager
def level(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The target of that name, or 256-bit dot products on one that has them in AVX-512 only."""
    if name == "avxvnni":
        row = table._dot_row(replace(_AVXVNNI, features=("avx512vnni", "avx512vl")))
        monkeypatch.setattr(table, "KERNELS", (row, *table.KERNELS))
    yield CPUS["cascadelake" if name == "avxvnni" else name]


@pytest.mark.parametrize("name", SWEPT)
def test_drawn_sums_of_products_equal_the_reference(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with level(name, monkeypatch) as target:
        check_exact(drawn_linear(LEVELS.index(name)), target)


@pytest.mark.parametrize("name", SWEPT[:-1])
def test_drawn_kernels_without_products_equal_the_reference(name: str) -> None:
    check_exact(drawn_others(LEVELS.index(name)), CPUS[name])


def test_what_is_drawn_takes_every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    with level("avxvnni", monkeypatch) as target:
        rows = chosen_kernels(lower(module_of(drawn_linear(LEVELS.index("avxvnni"))), target))
    kinds = {row["node"].split()[2] for row in rows if row["isa"] == "avxvnni"}
    assert kinds >= {"dense", "batched", "conv2d", "conv1d", "conv3d", "depthwise", "grouped", "transposed"}
