"""Sums whose lanes are parts: four lanes add up one channel of one pixel, each some of its products.

part[p,c] = 0 0 0 0
for each step of 16 products: part[p,c] += pairs of them      (all loops of `dot`)
acc[p,c..c+3] += sums of the lanes of part[p,c], ..., part[p,c+3]
"""

from __future__ import annotations

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Registers

_tir = tvm.tirx


def part_sums(isa: DotProduct, pixels: int, channels: int) -> Registers:
    """Those of a tile: int32 [channels * parts] for each pixel, zeros."""
    size = channels * isa.parts
    sums = [registers(size, "int32") for _ in range(pixels)]
    zeros = _tir.Broadcast(ex.int32(0), isa.lanes)
    for one in sums:
        for first in range(0, size, isa.lanes):
            tb.buffer_store(one, zeros, [_tir.Ramp(first, 1, isa.lanes)])
    return sums


def add_parts(isa: DotProduct, sums: Registers, acc: Registers, channels: int) -> None:
    """Adds them to acc, int32 [channels] of each pixel. For instruction sets with `join`."""
    assert isa.join is not None
    for first in range(0, channels, isa.lanes):
        for one, to in zip(sums, acc, strict=True):
            vectors = [one.vload([(first + i) * isa.parts], f"int32x{isa.lanes}") for i in range(isa.lanes)]
            total = to.vload([first], f"int32x{isa.lanes}")
            tb.buffer_store(to, ex.wrapping_add(total, isa.join(vectors)), [_tir.Ramp(first, 1, isa.lanes)])
