"""The table of kernels is complete, and a row higher up wins."""

from __future__ import annotations

import pytest

from tests.kernels.cases import CASES
from tests.kernels.harness import TARGETS, case, compiled, module_of
from tests.kernels.pointwise_cases import S8, U8, every
from tvm_qat.errors import UnsupportedError
from tvm_qat.ir import tvm
from tvm_qat.kernels import ISA, KERNEL, KERNELS, KernelRow, lower, table
from tvm_qat.kernels.elementwise import build_elementwise
from tvm_qat.qnn import build as qnn
from tvm_qat.qnn.table import OPS


@pytest.mark.parametrize("op", OPS)
def test_every_operator_has_a_kernel_and_cases(op: str) -> None:
    assert any(op in row.ops for row in KERNELS), f"{op} has no row in kernels.table"
    assert op in CASES, f"{op} has no cases in tests.kernels.cases"


@pytest.mark.parametrize("op", OPS)
def test_the_last_row_of_an_operator_serves_any_llvm_target(op: str) -> None:
    plain = [row for row in KERNELS if op in row.ops][-1]
    assert plain.isa == "generic"
    assert plain.name.startswith("plain")


def test_the_first_row_that_applies_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    special = KernelRow(
        "special", ("qnn.requantize",), lambda fused, _t: fused.dtype == "int8", build_elementwise, "avx"
    )
    monkeypatch.setattr(table, "KERNELS", (special, *KERNELS))
    cases = [
        case("to s8", lambda v: qnn.requantize(v, U8, S8), every("uint8")),
        case("to u8", lambda v: qnn.requantize(v, S8, U8), every("int8")),
    ]
    lowered = lower(module_of(cases), TARGETS["plain"])
    chosen = {
        str(f.attrs[KERNEL]): str(f.attrs[ISA]) for f in lowered.functions.values() if KERNEL in f.attrs
    }
    assert chosen == {"special": "avx", "plain_elementwise": "generic"}


def test_a_target_without_kernels_is_refused_by_name() -> None:
    mod = module_of([case("node7", lambda v: qnn.requantize(v, U8, S8), every("uint8"))])
    with pytest.raises(UnsupportedError, match=r"node7: no kernel of qnn\.requantize for target c"):
        lower(mod, tvm.target.Target("c"))


def test_an_unusual_number_of_channels_compiles_for_every_target() -> None:
    for target in TARGETS.values():
        compiled(module_of(CASES["qnn.conv1d"]()), target)
