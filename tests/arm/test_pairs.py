"""NEON without dot products: pairs of products in 16 bits where those hold them, and where it pays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.arm.test_sweep import check_exact_on_arm
from tests.kernels.harness import Case, module_of
from tests.kernels.pairs_cases import convolutions, extreme_dense, products
from tests.support.arm import needs_arm, target
from tvm_qat.ir import tvm
from tvm_qat.kernels import chosen_kernels, lower

NEON = tvm.target.Target(target("neon"))


def _on_arm(test: Any) -> Any:
    """Leaves it out where there is no emulator; the others of this file only compile."""
    for mark in needs_arm:
        test = mark(test)
    return test


def instruction_of(one: Case) -> str:
    (kernel,) = chosen_kernels(lower(module_of([one]), NEON))
    return str(kernel["isa"])


@_on_arm
@pytest.mark.parametrize("cases", [pytest.param(products, marks=pytest.mark.slow), convolutions])
def test_pairs_equal_the_reference(cases: Callable[[], list[Case]], tmp_path: Path) -> None:
    drawn = cases()
    assert sum(instruction_of(one) == "neon_pairs" for one in drawn) >= 0.6 * len(drawn)
    check_exact_on_arm(drawn, "neon", tmp_path)


@_on_arm
def test_pairs_that_leave_16_bits_equal_the_reference(tmp_path: Path) -> None:
    cases = [extreme_dense(f"{k}", 5, k, 20, both=True) for k in (16, 112, 121, 128)]
    check_exact_on_arm(cases, "neon", tmp_path)


@pytest.mark.parametrize(("both", "wanted"), [(False, "neon_pairs"), (True, "neon")])
def test_pairs_are_used_where_16_bits_hold_them(both: bool, wanted: str) -> None:
    assert instruction_of(extreme_dense("one", 12, 128, 16, both=both)) == wanted


@pytest.mark.parametrize(
    ("inner", "outer", "dtype", "wanted"),
    [
        (15, 16, "int8", "neon"),
        (48, 16, "int8", "neon"),
        (64, 16, "int8", "neon_pairs"),
        (65, 16, "int8", "neon"),  # the last step is for one product
        (64, 16, "uint8", "neon"),  # they would be copied as int8 first
        (64, 64, "uint8", "neon_pairs"),
        (256, 1, "uint8", "neon"),
    ],
)
def test_the_form_with_fewer_instructions_is_taken(inner: int, outer: int, dtype: str, wanted: str) -> None:
    assert instruction_of(extreme_dense("one", 12, inner, outer, dtype)) == wanted
