"""Instruction sets that add products: all that the dot-product kernels know of each.

A descriptor is data and three small operations; loops, blocking, packing, tails, borders and the
order of the epilogue are the same for all. To add an instruction set: its row here.

Every operation is exact. `vpmaddubsw`, which adds two products in 16 bits and saturates, is not used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr

_tir = tvm.tirx

Narrow: TypeAlias = Callable[[Sequence[PrimExpr], PrimExpr | None, str], PrimExpr]
"""(four vectors of int32, zero point as int32 or None, dtype) -> a vector of bytes, saturated."""

Join: TypeAlias = Callable[[Sequence[PrimExpr]], PrimExpr]
"""As many vectors of int32 as each has lanes -> one, with the sum of each vector's lanes."""


@dataclass(frozen=True)
class DotProduct:
    """acc[lane] += sum over k < depth of data[k] * weight[lane][k], in int32.

    features : LLVM's names of what the processor must have. lanes : accumulators of one vector.
    depth : products added by one instruction. data : dtypes of activations that it takes as they
    are; int8 and uint8 where that is missing are copied as the other, 128 higher or lower. weight :
    dtype of the packed weights. spread : (a load of activations of each pixel, lanes) -> for each step
    that they bring, a vector with its activations in every lane. dot : (acc, such a vector, weights) ->
    acc. tiles : (pixels, vectors of channels) that fit the registers, best first. unroll : loads in one
    turn of the inner loop, at most. registers : vectors that the processor has. adds_apart : products
    are added to acc by an instruction of its own. narrow : None where the compiler's own code is as good.

    steps : that one load of activations brings. pixels : whose sums share a vector of accumulators,
    one after the other. parts : lanes that share the sum of one channel; they are added up at the end, by
    join. epilogue : registers that one takes: two for scales, four for bounds, zero point and mask, two
    for values. defers : whether epilogues inside the next tile's loop were measured to be faster.
    prefetches : whether weights of the next block are fetched ahead.

    adds_halves : the products of a step's first half are added to those of its second in 16 bits, which
    hold all but twice -128 * -128. instead : runs the sums for which it takes fewer instructions, counted
    under qemu: per_step for each step of a sum, per_sum for what precedes and follows them.
    """

    name: str
    features: tuple[str, ...]
    lanes: int
    depth: int
    data: tuple[str, ...]
    weight: str
    spread: Callable[[Sequence[PrimExpr], int], list[PrimExpr]]
    dot: Callable[[PrimExpr, PrimExpr, PrimExpr], PrimExpr]
    tiles: tuple[tuple[int, int], ...]
    unroll: int
    registers: int
    adds_apart: bool = False
    narrow: Narrow | None = None
    steps: int = 1
    pixels: int = 1
    parts: int = 1
    join: Join | None = None
    epilogue: int = 8
    defers: bool = False
    prefetches: bool = False
    adds_halves: bool = False
    per_step: float = 0.0
    per_sum: float = 0.0
    instead: DotProduct | None = None

    @property
    def reach(self) -> int:
        """Activations of a load."""
        return self.depth * self.steps

    @property
    def channels(self) -> int:
        """Of a vector of accumulators, and of weights."""
        return self.lanes // (self.pixels * self.parts)

    def sums(self, channels: int) -> int:
        """Vectors of accumulators of a pixel's `channels`, or of half as many for each of two pixels."""
        return channels * self.parts // self.lanes

    @property
    def one_turn(self) -> bool:
        """Whether loops do one turn at a time. LLVM does several for processors in order, such as
        cortex-a53, and the products on their way to a sum would not fit the registers."""
        return self.adds_halves

    @property
    def keeps_activations(self) -> bool:
        """Whether a step holds the activations of all pixels, and takes weights one after the other."""
        return self.steps > 1 or self.parts > 1

    @property
    def adds_bytes_by_channel(self) -> bool:
        """Whether a lane adds four bytes of one channel, as depthwise kernels and attention want."""
        return self.depth == 4 and self.pixels == self.parts == 1

    def flips(self, dtype: str) -> bool:
        """Whether activations of this dtype must be copied with their sign bit flipped."""
        return dtype in ("int8", "uint8") and dtype not in self.data

    def moves(self, dtype: str) -> int:
        """What that copy, and so the zero point, is higher."""
        return (128 if dtype == "int8" else -128) if self.flips(dtype) else 0

    def runs_on(self, target: object) -> bool:
        """Whether the target's processor has it."""
        if str(target.kind.name) != "llvm":  # type: ignore[attr-defined]
            return False
        with target:  # type: ignore[attr-defined]
            return all(tvm.target.codegen.llvm_cpu_has_features(name) for name in self.features)


def _intrinsic(dtype: str, name: str, *args: PrimExpr) -> PrimExpr:
    return _tir.call_llvm_pure_intrin(dtype, name, *args)


def _four_bytes(loads: Sequence[PrimExpr], lanes: int) -> list[PrimExpr]:
    (data,) = loads
    return [_tir.Broadcast(_tir.reinterpret("int32", data), lanes)]


def _two_words(loads: Sequence[PrimExpr], lanes: int) -> list[PrimExpr]:
    """Two bytes, widened to 16 bits each."""
    (data,) = loads
    return [_tir.Broadcast(_tir.reinterpret("int32", _tir.Cast("int16x2", data)), lanes)]


def _vpdpbusd(bits: int) -> Callable[[PrimExpr, PrimExpr, PrimExpr], PrimExpr]:
    name = f"llvm.x86.avx512.vpdpbusd.{bits}"

    def dot(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
        return _intrinsic(
            f"int32x{bits // 32}", name, acc, _tir.reinterpret(f"uint8x{bits // 8}", data), weight
        )

    return dot


def _pmaddwd(name: str, lanes: int) -> Callable[[PrimExpr, PrimExpr, PrimExpr], PrimExpr]:
    """Two 16-bit products added in 32 bits: exact for bytes; the addition to acc wraps."""

    def dot(acc: PrimExpr, data: PrimExpr, weight: PrimExpr) -> PrimExpr:
        pairs = _intrinsic(f"int32x{lanes}", name, _tir.reinterpret(f"int16x{2 * lanes}", data), weight)
        return ex.wrapping_add(acc, pairs)

    return dot


_IN_ORDER = (0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
"""Where packing leaves the 32-bit groups of a 512-bit vector: it works within 128 bits."""


def _pack_512(parts: Sequence[PrimExpr], zero_point: PrimExpr | None, dtype: str) -> PrimExpr:
    """4 x int32x16 -> 64 bytes: saturate to 16 bits, add the zero point, saturate to 8."""
    halves = [_intrinsic("int16x32", "llvm.x86.avx512.packssdw.512", parts[i], parts[i + 1]) for i in (0, 2)]
    if zero_point is not None:
        shift = _tir.Broadcast(_tir.Cast("int16", zero_point), 32)
        halves = [_intrinsic("int16x32", "llvm.sadd.sat", half, shift) for half in halves]
    name = "packuswb" if dtype == "uint8" else "packsswb"
    packed = _intrinsic("int8x64", f"llvm.x86.avx512.{name}.512", *halves)
    groups = _tir.reinterpret("int32x16", packed)
    ordered = _tir.Shuffle([groups], [ex.int32(i) for i in _IN_ORDER])
    return _tir.reinterpret(f"{dtype}x64", ordered)


DOT_PRODUCTS = (
    DotProduct(
        "avx512vnni", ("avx512vnni",), 16, 4, ("uint8",), "int8", _four_bytes, _vpdpbusd(512),
        ((6, 4), (8, 3), (10, 2), (14, 1)), 4, 32, narrow=_pack_512, defers=True,
        prefetches=True,
    ),
    DotProduct(
        "avxvnni", ("avxvnni",), 8, 4, ("uint8",), "int8", _four_bytes, _vpdpbusd(256),
        ((6, 2), (10, 1)), 2, 16, prefetches=True,
    ),
    DotProduct(
        "avx512bw", ("avx512bw",), 16, 2, ("uint8", "int8"), "int16", _two_words,
        _pmaddwd("llvm.x86.avx512.pmaddw.d.512", 16), ((4, 4), (8, 2), (12, 1)), 2, 32,
        adds_apart=True, narrow=_pack_512, defers=True, prefetches=True,
    ),
    DotProduct(
        "avx2", ("avx2",), 8, 2, ("uint8", "int8"), "int16", _two_words,
        _pmaddwd("llvm.x86.avx2.pmadd.wd", 8), ((4, 2), (8, 1)), 2, 16,
        adds_apart=True, prefetches=True,
    ),
)  # fmt: skip
"""Best first; a target takes the first that it has."""
