"""The CUDA source of every operator, run on the CPU, gives the reference's bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels import fused_cases
from tests.kernels.cases import CASES
from tests.kernels.harness import Case, expected, module_of
from tests.kernels.linear_cases import conv_case
from tests.support.cuda import OLDER, TARGET, Emulated, needs_compiler
from tvm_qat.kernels.cuda import shares

pytestmark = needs_compiler


def check(cases: Sequence[Case], folder: Path, target: Any = TARGET) -> None:
    """Cases of known size; for the others see test_open_sizes."""
    known = [one for one in cases if not one.symbolic]
    mod = module_of(known)
    machine = Emulated(mod, folder, target)
    failures = []
    for i, one in enumerate(known):
        want = expected(mod, i, one)
        for early in (False, True):
            (have,) = machine.run(one.inputs, f"case{i}", early=early, backwards=early)
            assert have.dtype == want.dtype, one.name
            if not np.array_equal(want, have, equal_nan=want.dtype.kind == "f"):
                failures.append(f"{one.name}: {np.count_nonzero(want != have)} of {want.size} differ")
    assert not failures, failures


DEFAULT = ("qnn.conv2d", "qnn.batch_matmul", "qnn.avg_pool", "qnn.softmax", "qnn.concatenate", "qnn.divide")
"""A kernel of each kind; the others are left to .ci/run."""


@pytest.mark.parametrize(
    "op", [op if op in DEFAULT else pytest.param(op, marks=pytest.mark.slow) for op in CASES]
)
def test_every_operator_equals_the_reference(op: str, tmp_path: Path) -> None:
    check(CASES[op](), tmp_path)


def test_fused_operators_equal_the_reference(tmp_path: Path) -> None:
    check([*fused_cases.conv_cases(), *fused_cases.other_cases()], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("op", ["qnn.conv2d", "qnn.dense", "qnn.batch_matmul"])
def test_products_by_dp4a_equal_the_reference(op: str, tmp_path: Path) -> None:
    check(CASES[op](), tmp_path, OLDER)


def test_fused_products_by_dp4a_equal_the_reference(tmp_path: Path) -> None:
    check(fused_cases.conv_cases(), tmp_path, OLDER)


@pytest.mark.parametrize(
    "target",
    [pytest.param(TARGET, id="mma"), pytest.param(OLDER, id="dp4a", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("which", ["fused", pytest.param("conv2d", marks=pytest.mark.slow)])
def test_products_in_shares_equal_the_reference(
    which: str, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share for each step, in whatever tile."""
    monkeypatch.setattr(
        shares, "choose_shares", lambda tile, _rows, _columns, depth: (-(-depth // tile.step), 1)
    )
    deep = [conv_case(f"{c}", np.random.default_rng(c), inner=c, outer=67, data=d) for c, d in _DEEP]
    cases = [*fused_cases.conv_cases(), *deep] if which == "fused" else CASES["qnn.conv2d"]()
    check(cases, tmp_path, target)


_DEEP = ((24, "int8"), (29, "uint8"))
