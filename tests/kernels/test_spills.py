"""What kernels compile to: no vector register is put aside on the stack in an inner loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import Case, case, compiled_module, module_of, thirds
from tests.kernels.linear_cases import conv_case, integers
from tests.kernels.pointwise_cases import S8, U8
from tests.kernels.reduction_cases import pool_case
from tests.kernels.test_dot import dense
from tests.support.assembly import X86, inner_loops, spills
from tvm_qat.ir import relax, tvm
from tvm_qat.qnn import build as qnn

_INSTRUCTION = {
    "cascadelake": "vpdpbusd",
    "alderlake": "vpdpbusd",
    "x86-64-v4": "vpmaddwd",
    "x86-64-v3": "vpmaddwd",
}
"""The instruction that adds products, by processor: one for each row of `isa.DOT_PRODUCTS`."""


def products() -> list[Case]:
    """Kinds of sums of products, long and short ones: those whose inner loops LLVM would write out."""
    rng = np.random.default_rng(0)
    left, right = integers(rng, "uint8", 2, 24, 64), integers(rng, "int8", 2, 64, 64)
    wide: dict[str, Any] = {"size": (12, 24), "inner": 64, "outer": 64}
    depthwise: dict[str, Any] = {"size": (12, 24), "groups": 64, "inner": 1, "outer": 1}
    few = conv_case(
        "few channels", rng, size=(24, 48), inner=3, outer=64, kernel=(7, 7), stride=2, padding=(3,) * 4
    )
    return [
        few,
        *(dense(f"{inner} to {n}", 24, inner, n) for inner in (3, 4, 8, 20, 33) for n in (16, 64, 130)),
        *(
            conv_case(
                f"{inner} channels, {k}x{k}",
                rng,
                size=(12, 24),
                inner=inner,
                outer=outer,
                kernel=(k, k),
                padding=(k // 2,) * 4,
            )
            for inner, k, outer in ((1, 5, 32), (3, 3, 16), (3, 3, 32), (4, 5, 64), (8, 5, 64), (12, 3, 100))
        ),
        *(
            dense(f"{rows} rows to {n}", rows, 256, n)
            for rows, n in ((24, 64), (20, 32), (28, 16), (24, 130))
        ),
        conv_case("3x3", rng, **wide),
        conv_case("signed", rng, **wide, data="int8", zero=-5),
        conv_case("strided", rng, **wide, stride=2),
        conv_case("dilated", rng, **wide, dilation=2, padding=(2,) * 4),
        conv_case("grouped", rng, **wide, groups=2),
        conv_case("transposed", rng, **wide, transposed=True, stride=2),
        conv_case("one axis", rng, size=(24,), inner=64, outer=64, kernel=(3,)),
        conv_case("three axes", rng, size=(3, 4, 12), inner=64, outer=64, kernel=(3, 3, 3)),
        conv_case("depthwise", rng, **depthwise),
        conv_case("depthwise, strided", rng, **depthwise, stride=2),
        conv_case("depthwise, 5x5", rng, **depthwise, kernel=(5, 5), padding=(2,) * 4),
        conv_case("depthwise, dilated", rng, **depthwise, dilation=2, padding=(2,) * 4),
        *(
            conv_case(
                f"{n} sums of 32 bits", rng, size=(12, 24), inner=64, outer=n, kernel=(1, 1), padding=(0,) * 4
            )
            for n in (24, 48)
        ),
        case("both at run time", lambda x, y: qnn.batch_matmul(x, y, 3, 0), left, right),
    ]


def others() -> list[Case]:
    """Pools, chains, tables, concatenation."""
    rng = np.random.default_rng(1)
    x, table = integers(rng, "uint8", 8, 1024), integers(rng, "uint8", 256)
    image = integers(rng, "uint8", 1, 12, 12, 64)
    return [
        pool_case("average", shape=(1, 12, 12, 64), padding=(1,) * 4),
        pool_case("average, signed", shape=(1, 12, 12, 64), padding=(1,) * 4, grid=S8),
        case("mean", lambda v: qnn.mean(v, U8, S8, [1, 2], False), image),
        case("greatest", lambda v: [relax.op.nn.max_pool2d(v, (3, 3), layout="NHWC")], image, composite=True),
        case("add", lambda v, y: qnn.elementwise("add", v, y, U8, U8, S8), x, x),
        case("requantize", lambda v: qnn.requantize(v, U8, S8), x),
        case("table", lambda v: qnn.lut(v, table), x),
        case("concatenate", lambda v, y: qnn.concatenate([v, y], [U8, S8], U8, 1), x, x.view(np.int8)),
    ]


def _assembly(cases: list[Case], cpu: str) -> str:
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    executable = compiled_module(module_of(cases), target)
    return str(executable.mod.imports[0].inspect_source("asm"))


@pytest.mark.parametrize("cpu", _INSTRUCTION)
@pytest.mark.parametrize("cases", thirds(products))
def test_sums_of_products_stay_in_registers(cases: list[Case], cpu: str) -> None:
    loops = inner_loops(_assembly(cases, cpu), X86)
    adding = [body for body in loops if any(_INSTRUCTION[cpu] in line for line in body)]
    assert adding
    assert not [found for body in loops if (found := spills(body, X86))]


@pytest.mark.parametrize("cpu", _INSTRUCTION)
def test_other_kernels_stay_in_registers(cpu: str) -> None:
    loops = inner_loops(_assembly(others(), cpu), X86)
    assert len(loops) >= len(others())
    assert not [found for body in loops if (found := spills(body, X86))]


def test_a_spill_would_be_found() -> None:
    loop = ["vpdpbusd %zmm1, %zmm2, %zmm3", "vmovups %zmm3, 64(%rsp)", "vmovups %zmm3, (%rax)"]
    outer = ["f:", ".LBB0_1:", "xorl %eax, %eax", ".LBB0_2:", *loop, "jne .LBB0_2", "jne .LBB0_1", "retq"]
    assert inner_loops("\n".join(outer), X86) == [[*loop, "jne .LBB0_2"]]
    assert spills(loop, X86) == loop[1:2]
