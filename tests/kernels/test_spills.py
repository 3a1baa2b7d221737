"""What kernels compile to: no vector register is put aside on the stack in an inner loop."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from tests.kernels.harness import Case, case, compiled_module, module_of
from tests.kernels.linear_cases import conv_case, integers
from tests.kernels.pointwise_cases import S8, U8
from tests.kernels.reduction_cases import pool_case
from tests.kernels.test_dot import dense
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


def inner_loops(assembly: str) -> list[list[str]]:
    """The bodies of loops that hold no other loop, and no call or return: what checks arguments has none."""
    blocks, follow = _flow(assembly)
    found = [[line for label in loop for line in blocks[label]] for loop in _innermost(set(blocks), follow)]
    return [body for body in found if not any(re.match("call|ret", line) for line in body)]


def _flow(assembly: str) -> tuple[dict[str, list[str]], dict[str, set[str]]]:
    """Instructions of each block, and the blocks that may follow it; a block ends at a label or jump."""
    blocks: dict[str, list[str]] = {}
    follow: dict[str, set[str]] = {}
    here = ""
    for i, text in enumerate(assembly.splitlines()):
        line = text.split("#")[0].strip()
        label = line[:-1] if line.endswith(":") else None
        if label is not None:
            if here:
                follow[here].add(label)
            here = label
            blocks[here], follow[here] = [], set()
        elif line and not line.startswith(".") and here:
            blocks[here].append(line)
            jump = re.match(r"j(\w+)\s+(\S+)", line)
            if jump:
                follow[here].add(jump[2])
                after = f"after {i}"
                blocks[after], follow[after] = [], set()
                if jump[1] != "mp":
                    follow[here].add(after)
                here = after
            elif line.startswith("ret"):
                here = ""
    return blocks, follow


def _innermost(blocks: set[str], follow: dict[str, set[str]]) -> list[list[str]]:
    """The loops among `blocks` that hold none, each in the order of the assembly."""
    found = []
    for loop in _cycles(blocks, follow):
        entered = {to for at, ends in follow.items() if at not in loop for to in ends if to in loop}
        inner = _innermost(loop - (entered or set(sorted(loop)[:1])), follow)
        found += inner or [[label for label in follow if label in loop]]
    return found


def _cycles(blocks: set[str], follow: dict[str, set[str]]) -> list[set[str]]:
    """The largest sets of blocks in which each leads to each, by two walks (Kosaraju)."""
    before: dict[str, set[str]] = {label: set() for label in blocks}
    for label in blocks:
        for to in follow[label] & blocks:
            before[to].add(label)
    ended = _walk(sorted(blocks), {label: follow[label] & blocks for label in blocks})
    found = []
    seen: set[str] = set()
    for label in reversed(ended):
        part = set(_walk([label], before, seen))
        if len(part) > 1 or (part and label in follow[label]):
            found.append(part)
    return found


def _walk(starts: list[str], follow: dict[str, set[str]], seen: set[str] | None = None) -> list[str]:
    """What can be reached and was not `seen`, in the order in which walks end; adds it to `seen`."""
    seen = set() if seen is None else seen
    ended: list[str] = []
    path = [(start, False) for start in reversed(starts)]
    while path:
        label, done = path.pop()
        if done:
            ended.append(label)
        elif label not in seen:
            seen.add(label)
            path.append((label, True))
            path += [(to, False) for to in follow[label] - seen]
    return ended


def spills(body: list[str]) -> list[str]:
    return [line for line in body if re.match(r"v?mov\w+\s+%[xyz]mm\d+, .*\(%rsp", line)]


def _assembly(cases: list[Case], cpu: str) -> str:
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu})
    executable = compiled_module(module_of(cases), target)
    return str(executable.mod.imports[0].inspect_source("asm"))


@pytest.mark.parametrize("cpu", _INSTRUCTION)
def test_sums_of_products_stay_in_registers(cpu: str) -> None:
    loops = inner_loops(_assembly(products(), cpu))
    adding = [body for body in loops if any(_INSTRUCTION[cpu] in line for line in body)]
    assert adding
    assert not [found for body in loops if (found := spills(body))]


@pytest.mark.parametrize("cpu", _INSTRUCTION)
def test_other_kernels_stay_in_registers(cpu: str) -> None:
    loops = inner_loops(_assembly(others(), cpu))
    assert len(loops) >= len(others())
    assert not [found for body in loops if (found := spills(body))]


def test_a_spill_would_be_found() -> None:
    loop = ["vpdpbusd %zmm1, %zmm2, %zmm3", "vmovups %zmm3, 64(%rsp)", "vmovups %zmm3, (%rax)"]
    outer = ["f:", ".LBB0_1:", "xorl %eax, %eax", ".LBB0_2:", *loop, "jne .LBB0_2", "jne .LBB0_1", "retq"]
    assert inner_loops("\n".join(outer)) == [[*loop, "jne .LBB0_2"]]
    assert spills(loop) == loop[1:2]
