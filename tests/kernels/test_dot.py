"""Kernels by dot-product instructions: every remainder, border and end of range; what they compile to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.cases import CASES
from tests.kernels.harness import LEVELS, TARGETS, Case, case, check_exact, module_of, thirds
from tests.kernels.linear_cases import conv_case, integers
from tvm_qat.ir import const, relax
from tvm_qat.kernels import chosen_kernels, lower
from tvm_qat.qnn import build as qnn
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams

ISA = {"x86-64-v3": "avx2", "x86-64-v4": "avx512bw", "cascadelake": "avx512vnni"}
LINEAR = [name for name, spec in OPS.items() if spec.kind == "linear"]


def dense(name: str, rows: int, inner: int, outer: int, dtype: str = "uint8", zero: int = 0) -> Case:
    """A product that ends on 8 bits, so that the saturating packs are used where they can be."""
    rng = np.random.default_rng(inner * 100 + outer)
    w, x = integers(rng, "int8", outer, inner), integers(rng, dtype, rows, inner)
    bias = rng.integers(-(2**20), 2**20, outer).astype(np.int32)
    scale = rng.uniform(0.5, 1.5, outer) / (np.sqrt(inner) * 8000)
    target = QParams(np.array(1.0), np.array(7 if dtype == "uint8" else -3), dtype)
    source = QParams(scale, dtype="int32", axis=1)

    def graph(data: Any) -> list[Any]:
        return [
            qnn.dense(data, const(w), zero),
            lambda sums: relax.op.add(sums, const(bias)),
            lambda sums: qnn.requantize(sums, source, target),
        ]

    return case(name, graph, x, composite=True)


def remainders() -> list[Case]:
    """Inner sizes 1 to 33, outer ones around the widths of vectors and blocks."""
    outers = (1, 15, 16, 17, 31, 33, 63, 64, 65, 128, 130)
    return [
        dense(f"{k} to {outers[k % len(outers)]}", 1 + k % 7, k, outers[k % len(outers)], dtype, zero)
        for k in range(1, 34)
        for dtype, zero in (("uint8", (0, 255, 131)[k % 3]), ("int8", (-128, 127, 0)[k % 3]))
    ]


def borders() -> list[Case]:
    """Padding with zero points at their ends, strides, dilation, groups, one input channel."""
    rng = np.random.default_rng(5)
    ends = (("uint8", 0), ("uint8", 255), ("int8", -128), ("int8", 127))
    return [
        conv_case(f"{dtype} {zero} {kind}", rng, data=dtype, zero=zero, outer=outer, **options)
        for (dtype, zero), outer in zip(ends, (64, 65, 16, 40), strict=True)
        for kind, options in (
            ("3x3", {"inner": 5}),
            ("strided", {"inner": 4, "stride": 2, "padding": (2, 1, 0, 1)}),
            ("dilated", {"inner": 6, "dilation": 2, "padding": (2, 2, 2, 2)}),
            ("grouped", {"inner": 8, "groups": 3}),
            ("one channel", {"inner": 1, "kernel": (5, 5), "padding": (2, 2, 2, 2)}),
            ("transposed", {"inner": 4, "transposed": True, "stride": 2}),
            ("wholly outside", {"inner": 4, "padding": (5, 4, 6, 4), "stride": 2}),
        )
    ]


def passed_over() -> list[Case]:
    """Padding of zeros around enough channels, so that taps beyond the border are left out."""
    rng = np.random.default_rng(6)
    options: tuple[dict[str, Any], ...] = (
        {"size": (5, 9), "outer": 64}, {"size": (1, 1), "outer": 17}, {"size": (7, 7), "outer": 48},
        {"size": (9, 12), "outer": 32, "stride": 2}, {"size": (3, 33), "outer": 16, "padding": (2, 0, 0, 3)},
        {"size": (4, 6), "outer": 33, "kernel": (5, 5), "padding": (2, 2, 2, 2)},
        {"size": (5, 8), "outer": 20, "groups": 2}, {"size": (6, 5), "outer": 64, "batch": 2},
        {"size": (3, 5), "outer": 64, "stride": 2, "padding": (5, 4, 6, 4)},
        {"size": (4, 9), "outer": 65, "kernel": (1, 3), "padding": (0, 1, 0, 1)},
        {"size": (4, 9), "outer": 64, "dilation": 2, "padding": (2, 2, 2, 2)},
    )  # fmt: skip
    return [conv_case(str(option), rng, zero=0, inner=32, **option) for option in options]


@pytest.mark.parametrize("cases", thirds(passed_over))
@pytest.mark.parametrize("target", LEVELS)
def test_taps_beyond_the_border_are_passed_over_exactly(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


def depthwise_case(
    channels: int, kernel: int, stride: int, size: tuple[int, int], dtype: str, zero: int,
    extra: str = "", **attrs: Any,
) -> Case:  # fmt: skip
    """A depthwise convolution that ends on 8 bits. extra : what else its epilogue reads."""
    rng = np.random.default_rng(channels * 10 + kernel)
    x, w = integers(rng, dtype, 1, *size, channels), integers(rng, "int8", channels, kernel, kernel, 1)
    bias = rng.integers(-(2**12), 2**12, channels).astype(np.int32)
    scale = rng.uniform(0.5, 1.5, channels) / (kernel * 8000)
    target = QParams(np.array(1.0), np.array(7 if dtype == "uint8" else -3), dtype)
    source = QParams(scale, dtype="int32", axis=3)
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI", "groups": channels}
    attrs = {"padding": [kernel // 2] * 4, "dilation": [1, 1]} | attrs

    def graph(data: Any, *others: Any) -> list[Any]:
        steps = [
            qnn.conv(data, const(w), zero, strides=[stride] * 2, **attrs, **layouts),
            lambda sums: relax.op.add(sums, const(bias)),
            lambda sums: qnn.requantize(sums, source, target),
        ]
        if extra == "residual":
            steps.append(lambda y: qnn.elementwise("add", y, others[0], target, target, target))
        return steps[: 2 if extra == "int32" else 3 + len(others)]

    name = f"{channels} {kernel}x{kernel}/{stride} {size} {dtype} {zero} {extra} {attrs}"
    inputs = [x, integers(rng, dtype, 1, *size, channels)] if extra == "residual" else [x]
    return case(name, graph, *inputs, composite=True)


def depthwise() -> list[Case]:
    """Every way to fill blocks with channels and pixels; borders, strides, kernels, zero points."""
    counts = (16, 17, 31, 32, 33, 48, 64, 65, 79, 80, 95, 96, 100, 127, 144)
    ends = (("uint8", 0), ("uint8", 255), ("int8", -128), ("int8", 5), ("uint8", 9))
    sizes = ((1, 1), (3, 2), (5, 7), (4, 9), (2, 19), (3, 33))
    swept = [
        depthwise_case(counts[i % 15], 1 + (i + 2) % 5, 1 + i % 2, sizes[i % 6], *ends[i % 5])
        for i in range(15)
    ]
    options: tuple[dict[str, Any], ...] = (
        {"dilation": [2, 2], "padding": [2, 2, 2, 2]}, {"padding": [0, 0, 0, 0]},
        {"padding": [3, 0, 1, 4]}, {"extra": "residual"}, {"extra": "int32"},
    )  # fmt: skip
    return swept + [
        depthwise_case(channels, 3, 1, (6, 11), *ends[(i + channels) % 5], **option)
        for i, option in enumerate(options)
        for channels in (100 - 4 * i,)
    ]


@pytest.mark.parametrize("cases", thirds(depthwise))
@pytest.mark.parametrize("target", LEVELS)
def test_depthwise_equals_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


def strips() -> list[Case]:
    """Epilogues inside the loop of the next tile: few turns and many, few tiles, strips with rests."""
    sizes = (1, 2, 4, 5, 9, 11, 255, 256, 257, 261, 513)
    inners = (32, 33, 47, 48, 64, 100, 511, 512, 513, 64, 32)
    outers = (64, 16, 130, 65, 128, 33, 64, 20, 128, 64, 48)
    rng = np.random.default_rng(7)
    rows = [
        dense(f"{m} {k} to {n}", m, k, n, ("uint8", "int8")[i % 2], (0, 3)[i % 2])
        for i, (m, k, n) in enumerate(zip(sizes, inners, outers, strict=True))
    ]
    strided = [
        conv_case(f"1x1 {outer}", rng, kernel=(1, 1), size=(9, 19), inner=64, outer=outer, stride=2)
        for outer in (64, 72)
    ]
    options: dict[str, Any] = {"kernel": (1, 1), "padding": (0,) * 4, "inner": 64, "outer": 64}
    return [*rows, *strided, *(conv_case(f"any {n}", rng, batch=n, symbolic=True, **options) for n in (1, 7))]


def rings() -> list[Case]:
    """Rows of one tile and of several, strides, kernels and paddings of both sides, all zero points."""
    rng = np.random.default_rng(11)
    ends = (("uint8", 0), ("int8", 0), ("uint8", 255), ("int8", -128), ("uint8", 7), ("int8", 127))
    shapes: tuple[dict[str, Any], ...] = (
        {"size": (3, 2)}, {"size": (4, 5)}, {"size": (7, 7)}, {"size": (2, 14)},
        {"size": (1, 23), "batch": 2}, {"size": (6, 8), "stride": 2}, {"size": (7, 9), "stride": 2},
        {"size": (5, 6), "padding": (0, 1, 1, 0)}, {"size": (4, 6), "padding": (4, 1, 3, 1)},
        {"size": (5, 9), "padding": (2, 2, 2, 2), "kernel": (5, 5)},
        {"size": (4, 9), "padding": (1, 2, 0, 3), "kernel": (2, 7)},
        {"size": (3, 4, 5), "kernel": (3, 3, 3)},
    )  # fmt: skip
    return [
        conv_case(f"ring {i} {dtype} {zero}", rng, data=dtype, zero=zero, inner=16 + 16 * (i % 2),
                  outer=(64, 40)[i % 2], **shape)
        for i, shape in enumerate(shapes)
        for dtype, zero in (ends[0], ends[1 + i % 5])
    ]  # fmt: skip


def attention() -> list[Case]:
    """Products of two activations: remainders of both sizes, broadcast batches, zero points at their ends."""
    rng = np.random.default_rng(9)

    def one(rows: int, inner: int, outer: int, dtype: str, zero: int, batch: tuple[int, ...]) -> Case:
        x, y = integers(rng, dtype, 2, 3, rows, inner), integers(rng, "int8", *batch, inner, outer)
        name = f"{dtype} {zero} {rows}x{inner}x{outer} {batch}"
        return case(name, lambda left, right: qnn.batch_matmul(left, right, zero, 0), x, y)

    ends = (("uint8", 0), ("uint8", 255), ("int8", -128), ("int8", 127), ("int8", 0))
    sizes = ((1, 4, 16), (5, 5, 15), (7, 33, 65), (13, 64, 64), (6, 7, 1), (3, 18, 130), (197, 8, 197))
    return [
        one(*size, *ends[i % len(ends)], ((2, 3), (1, 3), (3,))[i % 3])
        for i, size in enumerate([*sizes, *sizes])
    ]


@pytest.mark.parametrize("cases", thirds(attention))
@pytest.mark.parametrize("target", LEVELS)
def test_attention_equals_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


def test_attention_takes_the_dot_product_kernel() -> None:
    lowered = lower(module_of(attention()[:1]), LEVELS["cascadelake"])
    assert {kernel["isa"] for kernel in chosen_kernels(lowered)} == {"avx512vnni"}


@pytest.mark.parametrize("cases", thirds(remainders))
@pytest.mark.parametrize("target", LEVELS)
def test_every_remainder_equals_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


@pytest.mark.parametrize("cases", thirds(strips))
@pytest.mark.parametrize("target", LEVELS)
def test_deferred_epilogues_equal_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


@pytest.mark.parametrize("cases", thirds(rings))
@pytest.mark.parametrize("target", LEVELS)
def test_rings_of_padding_equal_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


@pytest.mark.parametrize("cases", thirds(borders))
@pytest.mark.parametrize("target", LEVELS)
def test_borders_and_ends_of_range_equal_the_reference(target: str, cases: list[Case]) -> None:
    check_exact(cases, LEVELS[target])


@pytest.mark.parametrize("target", TARGETS)
def test_integers_added_in_the_epilogue_do_not_escape_the_bound(target: str) -> None:
    """A bias for each element cannot join the sum's start, and may exceed what the weights allow."""
    rng = np.random.default_rng(3)
    x, w = integers(rng, "uint8", 5, 64), integers(rng, "int8", 64, 64)
    bias = rng.choice(np.array([-(2**30), 2**30], np.int32), (5, 64))
    source, output = QParams(np.array(4.0), dtype="int32"), QParams(np.array(1.0), np.array(9), "uint8")

    def graph(data: Any) -> list[Any]:
        return [
            qnn.dense(data, const(w), 0),
            lambda sums: relax.op.add(sums, const(bias)),
            lambda sums: qnn.requantize(sums, source, output),
        ]

    check_exact([case("bias", graph, x, composite=True)], TARGETS[target])


@pytest.mark.parametrize("cases", thirds(*(CASES[op] for op in LINEAR), names=LINEAR))
def test_sums_of_products_equal_the_reference_with_vnni(cases: list[Case]) -> None:
    check_exact(cases, LEVELS["cascadelake"])


@pytest.mark.parametrize("target", LEVELS)
def test_the_best_instruction_set_of_a_target_is_taken(target: str) -> None:
    lowered = lower(module_of([dense("one", 4, 64, 64)]), LEVELS[target])
    (kernel,) = chosen_kernels(lowered)
    assert (kernel["kernel"], kernel["isa"]) == ("dot_linear", ISA[target])


def test_a_plain_target_and_a_wide_input_take_the_plain_kernel() -> None:
    lowered = lower(module_of([dense("one", 4, 64, 64)]), TARGETS["plain"])
    assert [kernel["kernel"] for kernel in chosen_kernels(lowered)] == ["plain_linear"]
