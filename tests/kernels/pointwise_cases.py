"""Cases of elementwise operators: all inputs, ties, the ends of int32, broadcasting, concatenation."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np

from tests.kernels.harness import Array, Case, case
from tests.kernels.linear_cases import integers
from tvm_qat.fixed_point import REQUANTIZE_ROUNDINGS, ROUNDINGS
from tvm_qat.qnn import build as qnn
from tvm_qat.qnn.arithmetic import NUDGED_FORMULAS, QUANTIZE_FORMULAS
from tvm_qat.qparams import QParams

U8, S8, U16, S16 = (
    QParams(0.05, 3, "uint8"), QParams(0.1, -7, "int8"), QParams(0.002, 32768, "uint16"),
    QParams(0.003, 0, "int16"),
)  # fmt: skip
S32 = QParams(0.0007, 0, "int32")


def every(dtype: str, *shape: int) -> Array:
    """All 256 values of an 8-bit dtype."""
    info = np.iinfo(dtype)
    values = np.arange(info.min, info.max + 1).astype(dtype)
    return values.reshape(shape) if shape else values


def pairs(left: str, right: str) -> tuple[Array, Array]:
    """All 65,536 pairs of two 8-bit dtypes."""
    x, y = np.meshgrid(every(left), every(right), indexing="ij")
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


def accumulators() -> Array:
    """int32 values at both ends, around ties and around zero."""
    ends = [-(2**31), -(2**31) + 1, -(2**31) + 64, 2**31 - 1, 2**31 - 64, 2**24 + 1, -(2**24) - 1]
    near = np.arange(-400, 401)
    return np.concatenate([ends, near, near * 12_345]).astype(np.int32)


def real_numbers() -> Array:
    """Ties of the scales used here, values far outside of any range, infinities, NaN."""
    steps = np.arange(-400, 400) / 2
    odd = [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e30, -1e30, 1e-40, 3e9, -3e9]
    return np.concatenate([steps * 0.05, steps * 0.1, steps * 0.25, odd]).astype(np.float32)


def quantize_cases() -> list[Case]:
    rng = np.random.default_rng(10)
    x, image = real_numbers(), rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    channel = QParams(rng.uniform(0.01, 0.1, 3), rng.integers(0, 255, 3), "uint8", axis=1)
    narrow = QParams(0.25, 0, "int8", None, -7, 7)
    grids = {"u8": U8, "s8": S8, "u16": U16, "s16": S16, "s32": S32, "four bits": narrow}
    found = [
        case(f"{formula} to {name}", lambda v, p=params, f=formula: qnn.quantize(v, p, f), x)
        for formula, (name, params) in product(QUANTIZE_FORMULAS, grids.items())
        if formula not in NUDGED_FORMULAS or name != "s32"
    ]
    found += [
        case(f"per channel, {formula}", lambda v, f=formula: qnn.quantize(v, channel, f), image)
        for formula in QUANTIZE_FORMULAS
    ]
    at_run_time = (np.array(0.05, np.float32), np.array(3, np.int32))
    return [
        *found,
        case("per channel, symbolic", lambda v: qnn.quantize(v, channel), image, symbolic=((0, 0),)),
        case("from float16", lambda v: qnn.quantize(v, U8), image.astype(np.float16)),
        case("scalar", lambda v: qnn.quantize(v, U8), np.array(0.31, np.float32)),
        case("symbolic line", lambda v: qnn.quantize(v, U8), np.tile(x, 4), symbolic=((0, 0),)),
        case("symbolic columns", lambda v: qnn.quantize(v, channel), image, symbolic=((0, 3),)),
        case(
            "at run time", lambda v, s, z: qnn.quantize_at_run_time(v, s, z, "uint8", 0, 255),
            x, *at_run_time,
        ),
    ]  # fmt: skip


def dequantize_cases() -> list[Case]:
    rng = np.random.default_rng(11)
    channel = QParams(rng.uniform(0.01, 0.1, 4), rng.integers(-9, 9, 4), "int32", axis=2)
    return [
        case("u8", lambda v: qnn.dequantize(v, U8), every("uint8")),
        case("s8", lambda v: qnn.dequantize(v, S8), every("int8")),
        case("s16", lambda v: qnn.dequantize(v, S16), integers(rng, "int16", 77)),
        case("s32", lambda v: qnn.dequantize(v, S32), accumulators()),
        case("channels", lambda v: qnn.dequantize(v, channel), integers(rng, "int32", 3, 2, 4)),
        case("to float16", lambda v: qnn.dequantize(v, U8, "float16"), every("uint8")),
        case(
            "at run time", qnn.dequantize_at_run_time, accumulators(), np.array(0.05, np.float32),
            np.array(3, np.int32),
        ),
    ]  # fmt: skip


def fake_quantize_cases() -> list[Case]:
    return [
        case(f"{formula}", lambda v, f=formula: qnn.fake_quantize(v, U8, f), real_numbers())
        for formula in QUANTIZE_FORMULAS
    ]


def fake_quantize_range_cases() -> list[Case]:
    def make(low: Any, high: Any, **options: Any) -> Case:
        x = real_numbers()[:1500].reshape(-1, 2)
        return case(f"{low} {high} {options}", lambda v: qnn.fake_quantize_range(v, low, high, **options), x)

    return [
        make(-1.0, 2.0),
        make(-6.0, 6.0, bits=4, narrow_range=True),
        make([-1.0, -3.0], [1.0, 0.5], axis=1, signed=True),
    ]


def requantize_cases() -> list[Case]:
    rng = np.random.default_rng(12)
    factors = {"halves": 0.5, "small": 0.00123, "large": 3.7, "tiny": 1e-9}
    found = []
    for rounding, (name, factor) in product(REQUANTIZE_ROUNDINGS, factors.items()):
        source = QParams(np.float64(np.float32(factor)), 0, "int32")
        for target in (
            QParams(1.0, 5, "uint8"),
            QParams(1.0, -128, "int8", None, -127, 127),
            QParams(1.0, 0, "int32"),
        ):
            label = f"{rounding} {name} to {target.dtype}"
            found.append(
                case(
                    label,
                    lambda v, s=source, t=target, r=rounding: qnn.requantize(v, s, t, r),
                    accumulators(),
                )
            )
    scales = QParams(rng.uniform(1e-4, 2.0, 6), 0, "int32", axis=1)
    output = QParams(rng.uniform(0.5, 1.0, 6), rng.integers(-9, 9, 6), "int8", axis=1)
    x = integers(rng, "int32", 2, 6, 5) // 1000
    for rounding in REQUANTIZE_ROUNDINGS:
        found += [
            case(f"channels, {rounding}", lambda v, r=rounding: qnn.requantize(v, scales, U8, r), x),
            case(f"to channels, {rounding}", lambda v, r=rounding: qnn.requantize(v, scales, output, r), x),
            case(f"u8 to s8, {rounding}", lambda v, r=rounding: qnn.requantize(v, U8, S8, r), every("uint8")),
            case(
                f"s8 to u16, {rounding}", lambda v, r=rounding: qnn.requantize(v, S8, U16, r), every("int8")
            ),
        ]
    for rounding in ROUNDINGS:
        target = QParams(1.0, 5, "uint8")
        source = QParams(np.float64(0.5), 0, "int32")
        found += [
            case(
                f"{rounding} of halves",
                lambda v, s=source, t=target, r=rounding: qnn.requantize(v, s, t, r),
                accumulators(),
            ),
            case(f"channels, {rounding}", lambda v, r=rounding: qnn.requantize(v, scales, output, r), x),
        ]
    shifted = QParams(0.01, 100, "int32")
    return [*found, case("int32 zero point", lambda v: qnn.requantize(v, shifted, U8), accumulators())]


def lut_cases() -> list[Case]:
    rng = np.random.default_rng(13)

    def make(name: str, table: Array, x: Array) -> Case:
        return case(name, lambda v: qnn.lut(v, table), x)

    return [
        make("u8 to s8", integers(rng, "int8", 256), every("uint8")),
        make("s8 to u8", integers(rng, "uint8", 256), every("int8", 16, 16)),
        make("s8 to float", rng.normal(size=256).astype(np.float32), every("int8")),
        make("last axis of 256", integers(rng, "int16", 256), integers(rng, "int8", 3, 256)),
    ]


def binary_cases(name: str) -> list[Case]:
    rng = np.random.default_rng(14)

    def make(
        label: str, x: Array, y: Array, lhs: QParams, rhs: QParams, output: QParams, **options: Any
    ) -> Case:
        return case(label, lambda a, b: qnn.elementwise(name, a, b, lhs, rhs, output), x, y, **options)

    channel = QParams(rng.uniform(0.02, 0.2, 4), rng.integers(0, 255, 4), "uint8", axis=1)
    image = integers(rng, "uint8", 2, 4, 3, 3)
    return [
        make("u8, u8", *pairs("uint8", "uint8"), U8, QParams(0.07, 200, "uint8"), QParams(0.1, 9, "uint8")),
        make("s8, u8", *pairs("int8", "uint8"), S8, U8, QParams(0.11, -3, "int8", None, -100, 100)),
        make("same scales", *pairs("int8", "int8"), QParams(1.0), QParams(1.0), QParams(2.0, 1, "int8")),
        make(
            "16 bits",
            integers(rng, "uint16", 99),
            integers(rng, "int16", 99),
            U16,
            S16,
            QParams(0.01, 5, "int16"),
        ),
        make("scalar", image, integers(rng, "uint8"), U8, U8, S8),
        make("broadcast", image, integers(rng, "uint8", 4, 1, 1), U8, U8, S8),
        make("both broadcast", integers(rng, "uint8", 5, 1), integers(rng, "uint8", 1, 7), U8, U8, S8),
        make("channels", image, image[::-1].copy(), channel, U8, U8),
        make("symbolic", image, integers(rng, "uint8", 3), U8, U8, S8, symbolic=((0, 0),)),
        case(
            "same operand",
            lambda a: qnn.elementwise(name, a, a, U8, QParams(0.03, 9, "uint8"), S8),
            every("uint8"),
        ),
        *(_rounded_sums(name) if name in ("add", "subtract") else []),
    ]


def _rounded_sums(name: str) -> list[Case]:
    """Bytes, and a sum of products with a constant, in every rounding; scales that make ties."""
    rng = np.random.default_rng(21)
    bytes_, sums = integers(rng, "uint8", 3, 70), rng.integers(-3000, 3000, (3, 70)).astype(np.int32)
    half, step = QParams(0.5, 3, "uint8"), QParams(1.0, -9, "int8")
    channel, fixed = QParams(np.full(70, 2.0**-6), 0, "int32", axis=1), QParams(2.0**-8, 0, "int32")
    return [
        case(f"{label}, {rounding}", lambda a, b, s=source, o=other, r=rounding: qnn.elementwise(
            name, a, b, s, o, step, r), x, y)
        for rounding in ROUNDINGS
        for label, x, y, source, other in (
            ("bytes", bytes_, bytes_[::-1].copy(), half, half), ("sums", sums, sums[:1], channel, fixed)
        )
    ]  # fmt: skip


def concatenate_cases() -> list[Case]:
    rng = np.random.default_rng(15)
    x, y, z = (integers(rng, d, 2, n, 3) for d, n in (("uint8", 2), ("int8", 5), ("uint8", 1)))

    def make(axis: int, *parts: Array, **options: Any) -> Case:
        grids = [U8 if str(part.dtype) == "uint8" else S8 for part in parts]
        return case(
            f"axis {axis}, {len(parts)} parts",
            lambda *v: qnn.concatenate(v, grids, U8, axis),
            *parts,
            **options,
        )

    return [
        make(1, x, y, z),
        make(2, x, x.astype(np.int8)),
        make(0, y, y[:1]),
        make(1, x, y, symbolic=((0, 0), (1, 0))),
        make(0, integers(rng, "uint8", 40_000), integers(rng, "int8", 13)),
    ]
