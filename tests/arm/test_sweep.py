"""Every kernel on every level of aarch64, under qemu: what is drawn equals the reference."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.kernels.drawn_cases import drawn_linear
from tests.kernels.harness import Case, compiled_module, expected, module_of
from tests.kernels.test_dot import attention, depthwise, remainders, rings
from tests.support.arm import COMPILER, LEVELS, needs_arm, run_on_arm, target
from tvm_qat.ir import tvm

pytestmark = needs_arm


def check_exact_on_arm(cases: Sequence[Case], level: str, folder: Path) -> None:
    """Every case gives the reference's bits."""
    mod = module_of(cases)
    executable = compiled_module(mod, tvm.target.Target(target(level)))
    library = folder / "all.so"
    executable.export_library(str(library), fcompile=tvm.support.cc.cross_compiler(COMPILER))
    calls = [(f"case{i}", one.inputs) for i, one in enumerate(cases)]
    outputs = run_on_arm(library.read_bytes(), level, calls, folder)
    wrong = [
        one.name
        for i, (one, (output,)) in enumerate(zip(cases, outputs, strict=True))
        if not _same_bits(output, expected(mod, i, one))
    ]
    assert not wrong


def _same_bits(output: np.ndarray, wanted: np.ndarray) -> bool:
    same_kind = output.dtype == wanted.dtype and output.shape == wanted.shape
    return same_kind and output.tobytes() == np.asarray(wanted, order="C").tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("level", LEVELS)
def test_drawn_sums_of_products_equal_the_reference(level: str, tmp_path: Path) -> None:
    check_exact_on_arm(drawn_linear(10 + list(LEVELS).index(level)), level, tmp_path)


@pytest.mark.parametrize("level", LEVELS)
def test_every_remainder_and_border_equals_the_reference(level: str, tmp_path: Path) -> None:
    cases = [*remainders(), *depthwise(), *rings(), *attention()]
    check_exact_on_arm(cases[list(LEVELS).index(level) :: 3], level, tmp_path)
