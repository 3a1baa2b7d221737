"""What kernels compile to for aarch64: the right instructions, few others, and no vector on the stack."""

from __future__ import annotations

import pytest

from tests.kernels.drawn_cases import drawn_linear
from tests.kernels.harness import Case, compiled_module, module_of, thirds
from tests.kernels.pairs_cases import convolutions, extreme_dense
from tests.kernels.test_dot import dense
from tests.kernels.test_spills import others, products
from tests.support.arm import LEVELS, target
from tests.support.assembly import ARM, inner_loops, spills
from tvm_qat.ir import tvm
from tvm_qat.kernels import chosen_kernels, lower

_MACS = {"sdot": 16, "usdot": 16, "smmla": 32, "usmmla": 32}
_LONG = {"smull", "smull2", "smlal", "smlal2"}
"""Instructions that multiply, and their products; the long ones have eight in 16 bits, four in 32."""

_IDEAL = {
    # 6 rows by 16 channels: 24 products, 1.5 loads of activations, 4 of weights in pairs, in 4 turns a loop
    "dotprod": (96 + 6 + 8 + 4) / (6 * 16 * 16),
    # 4 rows by 4 channels: 3 instructions for 16 pairs, 4 loads of activations, 4 of weights in pairs
    "neon": (48 + 4 + 2 + 3) / (4 * 4 * 16),
    # 4 rows by 16 channels: 16 products, 2 loads of activations, 2 zips, 4 loads of weights in pairs, twice
    "i8mm": (32 + 4 + 4 + 8 + 4) / (4 * 16 * 16),
}
"""Instructions per multiply-accumulate of the best tile that registers allow, loop control included."""

PROCESSORS = [
    *(("generic", level) for level in _IDEAL),
    *(
        pytest.param(cpu, level, marks=pytest.mark.slow)
        for cpu, level in (
            ("cortex-a53", "neon"), ("cortex-a72", "neon"), ("cortex-a76", "dotprod"),
            ("neoverse-n1", "dotprod"), ("neoverse-n2", "i8mm"), ("apple-m2", "i8mm"),
        )
    ),
]  # fmt: skip


def loops_of(cases: list[Case], cpu: str, level: str) -> list[list[str]]:
    made = compiled_module(module_of(cases), tvm.target.Target({**target(level), "mcpu": cpu}))
    return inner_loops(str(made.mod.imports[0].inspect_source("asm")), ARM)


def products_in(body: list[str]) -> int:
    return sum(_products(line) for line in body)


def _products(line: str) -> int:
    name, operand, *_ = (*line.split(), "")
    if name in _LONG:
        return 8 if ".8h" in operand else 4
    return _MACS.get(name, 0)


@pytest.mark.parametrize("level", _IDEAL)
@pytest.mark.parametrize("cases", thirds(products))
def test_sums_of_products_stay_in_registers(cases: list[Case], level: str) -> None:
    """As LLVM schedules for no processor in particular; for some it puts sums of a few short loops aside."""
    loops = loops_of(cases, "generic", level)
    assert sum(products_in(body) > 0 for body in loops) >= 0.6 * len(cases)
    assert not [found for body in loops if (found := spills(body, ARM))]


@pytest.mark.parametrize(
    "cpu", ["generic", *(pytest.param(cpu, marks=pytest.mark.slow) for cpu in ("cortex-a53", "cortex-a72"))]
)
def test_pairs_of_products_stay_in_registers(cpu: str) -> None:
    """On processors in order too, for which LLVM would do several turns of a loop at once."""
    loops = loops_of(convolutions(), cpu, "neon")
    adding = [body for body in loops if any(line.startswith("sadalp") for line in body)]
    assert len(adding) >= len(convolutions())
    assert not [found for body in adding if (found := spills(body, ARM))]


@pytest.mark.parametrize("level", _IDEAL)
def test_other_kernels_stay_in_registers(level: str) -> None:
    loops = loops_of(others(), "generic", level)
    assert len(loops) >= len(others())
    assert not [found for body in loops if (found := spills(body, ARM))]


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
@pytest.mark.parametrize(("cpu", "level"), PROCESSORS)
def test_instructions_per_product_are_near_the_ideal(cpu: str, level: str, dtype: str) -> None:
    loops = loops_of([dense("long", 60, 512, 192, dtype)], cpu, level)
    (body,) = [body for body in loops if products_in(body)]
    assert not spills(body, ARM)
    assert len(body) / products_in(body) <= 1.15 * _IDEAL[level]


@pytest.mark.parametrize(
    ("level", "dtype", "instruction"),
    [
        ("neon", "uint8", {"smull", "smlal2"}),
        ("dotprod", "uint8", {"sdot"}),
        ("i8mm", "int8", {"smmla"}),
        ("i8mm", "uint8", {"usmmla"}),
    ],
)
def test_the_best_instruction_of_a_level_is_used(level: str, dtype: str, instruction: set[str]) -> None:
    loops = loops_of([dense("long", 60, 512, 192, dtype)], "generic", level)
    (body,) = [body for body in loops if products_in(body)]
    assert {line.split()[0] for line in body if _products(line)} == instruction


def test_pairs_of_products_are_added_to_their_sum_by_one_instruction() -> None:
    loops = loops_of([dense("long", 60, 512, 192, "int8")], "generic", "neon")
    (body,) = [body for body in loops if products_in(body)]
    sums = sum(line.startswith("sadalp") for line in body)
    assert 16 * sums == products_in(body) and not any("saddlp" in line for line in body)


def test_weights_whose_pairs_leave_16_bits_are_multiplied_lane_by_lane() -> None:
    loops = loops_of([extreme_dense("overflowing", 60, 512, 192, both=True)], "generic", "neon")
    (body,) = [body for body in loops if products_in(body)]
    assert {line.split()[0] for line in body if _products(line)} == {"smlal"}
    assert not spills(body, ARM)
    # 6 rows by 16 channels: 192 products, 6 loads, 6 widened, 16 loads of weights in pairs, in 8 steps
    assert len(body) / products_in(body) <= 1.15 * (192 + 6 + 6 + 16 + 4) / (6 * 16 * 8)


def test_a_spill_would_be_found() -> None:
    loop = ["sdot v0.4s, v1.16b, v2.4b[0]", "stp q1, q2, [sp, #32]", "str q3, [x0]"]
    outer = [
        "f:",
        ".LBB0_1:",
        "mov x0, #0 // x",
        ".LBB0_2:",
        *loop,
        "b.ne .LBB0_2",
        "cbnz x1, .LBB0_1",
        "ret",
    ]
    assert inner_loops("\n".join(outer), ARM) == [[*loop, "b.ne .LBB0_2"]]
    assert spills(loop, ARM) == loop[1:2]


@pytest.mark.parametrize(
    ("level", "wanted"),
    [("neon", {"neon", "neon_pairs"}), ("dotprod", {"dotprod"}), ("i8mm", {"i8mm", "usdot"})],
)
def test_what_is_drawn_under_qemu_takes_every_kernel_of_a_level(level: str, wanted: set[str]) -> None:
    cases = drawn_linear(10 + list(LEVELS).index(level))
    rows = chosen_kernels(lower(module_of(cases), tvm.target.Target(target(level))))
    assert {row["isa"] for row in rows} >= wanted
