"""Lookups in tables: exact for every length and instruction set, and by shuffles where there are any."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.kernels.harness import TARGETS, Case, case, check_exact, module_of
from tests.kernels.linear_cases import integers
from tests.kernels.pointwise_cases import S8, U8
from tvm_qat.ir import const, tvm
from tvm_qat.kernels import finish, lower
from tvm_qat.kernels.tables import ChooseLookups
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

_CPUS = {"avx512vbmi": "icelake-server", "avx512bw": "x86-64-v4", "avx2": "x86-64-v3"}
_INSTRUCTION = {"avx512vbmi": r"vperm[it]2b", "avx512bw": "vpshufb", "avx2": "vpshufb"}


def target_of(feature: str) -> object:
    return tvm.target.Target({"kind": "llvm", "mcpu": _CPUS[feature]})


def table_case(length: int, dtype: str, entries: str) -> Case:
    rng = np.random.default_rng(length)
    table, x = integers(rng, entries, 256), integers(rng, dtype, length)
    return case(f"{length} {dtype} to {entries}", lambda v: qnn.lut(v, table), x)


def lengths() -> list[Case]:
    """Whole vectors, every remainder, and all 256 values."""
    dtypes = ("uint8", "int8")
    return [
        table_case(n, dtypes[n % 2], dtypes[n // 2 % 2])
        for n in (*range(1, 34), 63, 64, 65, 66, 127, 1000, 1001, 1002, 1003)
    ]


def epilogue() -> list[Case]:
    """Behind a sum of products, whose blocks of channels are whole vectors and less."""
    found = []
    for outer in (1, 9, 31, 64, 70):
        rng = np.random.default_rng(outer)
        x, w = integers(rng, "uint8", 5, 12), integers(rng, "int8", outer, 12)
        table, source = integers(rng, "int8", 256), QParams(np.array(0.004), dtype="int32")
        for grid in (U8, S8):
            found.append(
                case(
                    f"{outer} {grid.dtype}",
                    lambda v, w=w, s=source, g=grid, t=table: [
                        qnn.dense(v, const(w), 3), lambda a: qnn.requantize(a, s, g), lambda a: qnn.lut(a, t),
                    ], x, composite=True,
                )
            )  # fmt: skip
    return found


@pytest.mark.parametrize("feature", _CPUS)
def test_every_length_equals_the_reference(feature: str) -> None:
    check_exact([*lengths(), *epilogue()], target_of(feature))


@pytest.mark.parametrize("feature", _CPUS)
def test_an_instruction_set_looks_up_by_its_own_shuffles(feature: str) -> None:
    target = target_of(feature)
    lookup = ChooseLookups(target).lookup
    assert lookup is not None
    assert lookup.feature == feature
    lowered = lower(module_of([table_case(4096, "int8", "uint8")]), target)
    assembly = (
        tvm.compile(lowered, target, relax_pipeline=finish(target)).mod.imports[0].inspect_source("asm")
    )
    assert re.search(rf"\b{_INSTRUCTION[feature]}\b", assembly)


def test_a_plain_target_loads_each_entry() -> None:
    assert ChooseLookups(TARGETS["plain"]).lookup is None


@pytest.mark.parametrize("target", TARGETS)
def test_wider_entries_are_loaded(target: str) -> None:
    rng = np.random.default_rng(0)
    x = integers(rng, "int8", 77)
    for table in (integers(rng, "int16", 256), rng.normal(size=256).astype(np.float32)):
        check_exact([case(str(table.dtype), lambda v, t=table: qnn.lut(v, t), x)], TARGETS[target])
