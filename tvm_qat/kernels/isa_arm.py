"""Instruction sets of aarch64 that add products: rows of `isa.DOT_PRODUCTS`.

All vectors have 128 bits. Their instructions take one lane of a register for all channels, so one
load of 16 activations serves the steps of all its lanes, and nothing has to be spread.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct

_tir = tvm.tirx


def _neon(dtype: str, name: str, *args: PrimExpr) -> PrimExpr:
    return _tir.call_llvm_pure_intrin(dtype, f"llvm.aarch64.neon.{name}", *args)


def _lanes(value: PrimExpr) -> int:
    return int(str(value.ty.dtype).partition("x")[2] or 1)


def _element(value: PrimExpr) -> str:
    return str(value.ty.dtype).partition("x")[0]


def _shuffled(vectors: Sequence[PrimExpr], order: Sequence[int]) -> PrimExpr:
    filled = list(vectors)
    while len(filled) * _lanes(filled[0]) < len(order):  # TVM wants no fewer lanes than the result has
        filled += filled
    return _tir.Shuffle(filled, [ex.int32(i) for i in order])


def _fours(loads: Sequence[PrimExpr], lanes: int) -> list[PrimExpr]:
    """Each four bytes in all lanes, which LLVM makes the lane that an instruction names."""
    (data,) = loads
    steps, dtype = _lanes(data) // 4, f"{_element(data)}x{4 * lanes}"
    if steps == 1:
        return [_tir.reinterpret(dtype, _tir.Broadcast(_tir.reinterpret("int32", data), lanes))]
    words = _tir.reinterpret(f"int32x{steps}", data)
    return [_tir.reinterpret(dtype, _shuffled([words], [i] * lanes)) for i in range(steps)]


def _dot_fours(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
    """sdot, or usdot where the activations are unsigned."""
    if _element(data) == "uint8":
        return _neon("int32x4", "usdot.v4i32.v16i8", acc, data, weight)
    return _neon("int32x4", "sdot.v4i32.v16i8", acc, weight, _tir.reinterpret("int8x16", data))


def _pairs_of_eights(loads: Sequence[PrimExpr], _lanes_: int) -> list[PrimExpr]:
    """Eight bytes of one pixel and eight of the next."""
    dtype = f"{_element(loads[0])}x16"
    if _lanes(loads[0]) == 8:
        return [_shuffled(loads, range(16))]
    eights = [_tir.reinterpret("int64x2", data) for data in loads]
    return [_tir.reinterpret(dtype, _shuffled(eights, [i, 2 + i])) for i in range(2)]


def _multiply_eights(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
    """Two pixels by two channels: smmla, or usmmla where the activations are unsigned."""
    name = "usmmla" if _element(data) == "uint8" else "smmla"
    return _neon("int32x4", f"{name}.v4i32.v16i8", acc, data, weight)


def _widened(loads: Sequence[PrimExpr], lanes: int) -> list[PrimExpr]:
    """Each byte in all lanes, in 16 bits; LLVM makes that the lane of a register, too."""
    (data,) = loads
    if _lanes(data) == 1:
        return [_tir.Broadcast(_tir.Cast("int16", data), lanes)]
    wide = _tir.Cast(f"int16x{_lanes(data)}", data)
    return [_shuffled([wide], [i] * lanes) for i in range(_lanes(data))]


def _multiply_wide(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
    """smlal: 16-bit products added in 32 bits; the addition wraps."""
    products = _neon("int32x4", "smull.v4i32", weight, data)
    return ex.wrapping_add(acc, products)


def _as_loaded(loads: Sequence[PrimExpr], _lanes_: int) -> list[PrimExpr]:
    return list(loads)


def _multiply_pairs(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
    """smull, smlal2, sadalp: products of both halves added in 16 bits, neighbours of these in 32."""
    low, high = (
        _neon("int16x8", "smull.v8i16", *(_shuffled([of], range(first, first + 8)) for of in (weight, data)))
        for first in (0, 8)
    )
    total = ex.wrapping_add(acc, _neon("int32x4", "saddlp.v4i32.v8i16", low + high))
    # LLVM would add up two steps first, by one instruction more: it looks through no fence of floats.
    return _tir.reinterpret("int32x4", ex.fence(_tir.reinterpret("float32x4", total)))


def _join(vectors: Sequence[PrimExpr]) -> PrimExpr:
    """addp: four vectors -> the sum of each one's lanes."""
    low, high = (_neon("int32x4", "addp.v4i32", *vectors[i : i + 2]) for i in (0, 2))
    return _neon("int32x4", "addp.v4i32", low, high)


def _narrow(parts: Sequence[PrimExpr], zero_point: PrimExpr | None, dtype: str) -> PrimExpr:
    """4 x int32x4 -> 16 bytes: saturate to 16 bits, add the zero point, saturate to 8."""
    quarters = [_neon("int16x4", "sqxtn.v4i16", part) for part in parts]
    halves = [_shuffled(quarters[i : i + 2], range(8)) for i in (0, 2)]
    if zero_point is not None:
        shift = _tir.Broadcast(_tir.Cast("int16", zero_point), 8)
        halves = [_neon("int16x8", "sqadd.v8i16", half, shift) for half in halves]
    name = "sqxtun.v8i8" if dtype == "uint8" else "sqxtn.v8i8"
    return _shuffled([_neon(f"{dtype}x8", name, half) for half in halves], range(16))


_LANE_BY_LANE = DotProduct(
    "neon", ("neon",), 4, 1, ("uint8", "int8"), "int16", _widened, _multiply_wide,
    ((5, 4), (6, 3), (8, 2)), 1, 32, narrow=_narrow, steps=8, epilogue=16, per_step=190 / 640, per_sum=2.5,
)  # fmt: skip


ARM_DOT_PRODUCTS = (
    DotProduct(
        "i8mm", ("i8mm",), 4, 8, ("uint8", "int8"), "int8", _pairs_of_eights, _multiply_eights,
        ((4, 4), (6, 3), (8, 2)), 1, 32, narrow=_narrow, steps=2, pixels=2, epilogue=16,
    ),
    DotProduct(
        "usdot", ("dotprod", "i8mm"), 4, 4, ("uint8", "int8"), "int8", _fours, _dot_fours,
        ((5, 4), (6, 3), (8, 2)), 1, 32, narrow=_narrow, steps=4, epilogue=16,
    ),
    DotProduct(
        "dotprod", ("dotprod",), 4, 4, ("int8",), "int8", _fours, _dot_fours,
        ((5, 4), (6, 3), (8, 2)), 1, 32, narrow=_narrow, steps=4, epilogue=16,
    ),
    DotProduct(
        "neon_pairs", ("neon",), 4, 16, ("int8",), "int8", _as_loaded, _multiply_pairs,
        ((3, 1),), 1, 32, narrow=_narrow, epilogue=16, parts=4, join=_join, adds_halves=True,
        per_step=46 / 12, per_sum=5.9, instead=_LANE_BY_LANE,
    ),
    _LANE_BY_LANE,
)  # fmt: skip
"""Best first."""
