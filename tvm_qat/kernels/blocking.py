"""Register blocking of the plain kernels: the knobs, and their defaults by vector width.

A tile keeps `pixels` x `channels` int32 accumulators in registers; each weight vector is
widened once and serves all pixels of the tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.line import pixels_of_line
from tvm_qat.kernels.linear_spec import LinearSpec


@dataclass(frozen=True)
class Blocking:
    """`rate`: multiply-accumulates per nanosecond of the full tile, measured on Zen 5."""

    channels: int
    pixels: int
    rate: float


_BY_WIDTH: dict[int, tuple[Blocking, ...]] = {
    512: (Blocking(64, 4, 58.0), Blocking(32, 8, 52.0), Blocking(16, 8, 38.0), Blocking(8, 8, 19.0)),
    256: (Blocking(32, 2, 32.0), Blocking(16, 6, 34.0), Blocking(8, 6, 27.0), Blocking(4, 6, 13.0)),
    128: (Blocking(32, 4, 10.6), Blocking(16, 6, 9.3), Blocking(8, 4, 8.1), Blocking(4, 4, 5.0)),
}


def vector_bits(target: Any) -> int:
    """Width of the vectors that the target computes with."""
    if target.kind.name != "llvm":
        return 128
    with target:
        has = tvm.target.codegen.llvm_cpu_has_features
        is_x86 = _is_x86(target)
        if is_x86 and has("avx512f"):
            return 512
        return 256 if is_x86 and has("avx2") else 128


def _is_x86(target: Any) -> bool:
    triple = str(target.attrs.get("mtriple", "")) or str(tvm.target.codegen.llvm_get_system_triple())
    return triple.startswith(("x86_64", "i386", "i686"))


def choose_blocking(target: Any, outer: int) -> Blocking:
    """The fastest tile for `outer` output channels, counting the lanes that would idle."""
    rows: Sequence[Blocking] = _BY_WIDTH[vector_bits(target)]
    if not _is_x86(target):
        # Sums in all of 32 registers: x86 adds from memory, where others would have to load.
        rows = [row for row in rows if row.channels * row.pixels < 32 * vector_bits(target) // 32]
    return max(rows, key=lambda b: b.rate * outer / (-(-outer // b.channels) * b.channels))


_DEPTHWISE = {512: Blocking(16, 8, 0.0), 256: Blocking(8, 4, 0.0), 128: Blocking(8, 4, 0.0)}


def depthwise_blocking(target: Any) -> Blocking:
    """Depthwise loads data by vectors too, so that it needs more registers: wider tiles spilled."""
    return _DEPTHWISE[vector_bits(target)]


_KEPT_BY_SHORT_ROWS = Fraction(5, 6)
_LATENCY = 4
"""Steps that a dot product takes: as many sums must be under way."""


def dot_blocking(isa: DotProduct, spec: LinearSpec, pixels: int, short_rows: bool) -> Blocking:
    """The tile that takes the least time for rows of `pixels`, the widest among equals.

    short_rows : whether a loop over taps is the innermost, its body the steps of one tap. Such a
    body is scheduled as a whole and needs registers beside the tile's.
    A step of a tile of p pixels and v vectors has p * v dot products, or waits for p + v loads.
    """
    kept = _KEPT_BY_SHORT_ROWS if short_rows else Fraction(1)

    def cost(blocking: Blocking) -> float:
        p, v = min(blocking.pixels, pixels), isa.sums(blocking.channels)
        return -(-spec.outer // blocking.channels) * max(p * v, p + v, _LATENCY) / p

    tiles = [
        Blocking(vectors * isa.lanes, pixels_of_line(isa, spec, int(count * kept), vectors * isa.parts), 0.0)
        for count, vectors in isa.tiles
    ]
    return min(tiles, key=cost)


def dot_depthwise_blocking(isa: DotProduct, outputs: int) -> Blocking:
    """Blocks of four vectors; as many pixels as leave the registers to interleave in.

    outputs : that one interleaved window serves (`depthwise_layout.outputs_of_window`); where it
    is one, every pixel interleaves a window of its own, and fewer are kept at once.
    """
    pixels, vectors = isa.tiles[0]
    return Blocking(4 * isa.lanes, pixels * vectors // (12 if outputs == 1 else 6), 0.0)
