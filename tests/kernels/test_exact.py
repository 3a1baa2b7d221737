"""Every operator, compiled for every level of this machine, gives the reference's bits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernels import fused_cases, litert_cases
from tests.kernels.cases import CASES
from tests.kernels.harness import TARGETS, Case, check_exact, thirds

ROOT = Path(__file__).resolve().parents[2]

_CHECK_ALL = """
import tvm_qat.kernels.loops
tvm_qat.kernels.loops.PARALLEL_WORK = 0  # the cases are tiny, and shall use all threads
from tests.kernels import fused_cases, litert_cases
from tests.kernels.cases import CASES
from tests.kernels.harness import TARGETS, check_exact
check_exact(fused_cases.conv_cases() + fused_cases.other_cases(), list(TARGETS.values())[-1])
for op in ("qnn.dense", "qnn.batch_matmul", "qnn.add", "qnn.avg_pool", "qnn.concatenate", "qnn.softmax"):
    check_exact(CASES[op](), list(TARGETS.values())[-1])
"""


LEVELS = [name for name in TARGETS if name != "cascadelake"]
"""It differs from x86-64-v4 only where sums of products are concerned: see the fused cases."""


@pytest.mark.parametrize("target", LEVELS)
@pytest.mark.parametrize("cases", thirds(*CASES.values(), names=list(CASES)))
def test_compiled_code_equals_the_reference(cases: list[Case], target: str) -> None:
    check_exact(cases, TARGETS[target])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("cases", thirds(fused_cases.conv_cases))
def test_a_fused_convolution_equals_the_reference(cases: list[Case], target: str) -> None:
    check_exact(cases, TARGETS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_other_fused_anchors_equal_the_reference(target: str) -> None:
    check_exact(fused_cases.other_cases(), TARGETS[target])


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_the_number_of_threads_does_not_change_a_bit(threads: int) -> None:
    """In a process of its own: TVM reads the number of threads when it starts."""
    done = subprocess.run(
        [sys.executable, "-c", _CHECK_ALL], cwd=ROOT, env={**os.environ, "TVM_NUM_THREADS": str(threads)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("target", sorted({LEVELS[0], list(TARGETS)[-1]}))
@pytest.mark.parametrize(
    "cases", thirds(litert_cases.litert_cases, litert_cases.fused_cases, names=["alone", "fused"])
)
def test_the_arithmetic_of_litert_equals_the_reference(cases: list[Case], target: str) -> None:
    check_exact(cases, TARGETS[target])
