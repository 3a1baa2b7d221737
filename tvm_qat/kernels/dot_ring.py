"""Convolutions pass over the ring of padding, its columns as well as its rows.

Rows are the same for all pixels of a tile, columns are not: only the first pixel of a row reads the
ring on the left, and only the last one that on the right. So a tile's loop leaves out the columns of
the kernel that any of its pixels finds in the ring, and the other pixels make up for them:

    for each row of the kernel in the ring: acc += its part
    for each row of the kernel inside:
        for each column of the kernel that all pixels of the tile find inside: all pixels
        in the first tile of a row, for the columns on the left:   all but the first pixel
        in the last tile of a row, for the columns on the right:   all but the last pixel
        acc of the pixel left out += its part

The ring holds a zero point other than 0 (there is no ring for 0: `dot_borders`), for which the start
of the sums makes up. A part is the zero point times weights, known at compile time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.dot import DotBody, Meanwhile
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Registers
from tvm_qat.kernels.linear_spec import Axis, LinearSpec
from tvm_qat.kernels.loops import loops
from tvm_qat.kernels.packing import pack_vector
from tvm_qat.qnn.arithmetic import Array

_tir = tvm.tirx
_ROW, _LEFT, _RIGHT = range(3)


def passes_over_columns(spec: LinearSpec, isa: DotProduct) -> bool:
    """Whether each column of the kernel is whole turns of the inner loop, and one reads the ring.

    Instruction sets with 16 registers have none left for the parts: theirs would be spilled.
    """
    width = spec.axes[2]
    known = (
        isa.narrow is not None
        and isa.pixels == 1
        and isinstance(width.size, int)
        and isinstance(width.out, int)
        and width.out > 1
    )
    if not known or not spec.merges_columns or width.spread > 1 or min(width.before, width.after) < 0:
        return False
    left, right = _outside(width)
    return 0 < left + right < width.kernel and spec.inner % (isa.reach * isa.unroll) == 0


def ring_parts(spec: LinearSpec, weights: Array, zero_point: int, channels: int, isa: DotProduct) -> Array:
    """int32 [D, H, 3, blocks * channels * isa.parts]: what a row of the kernel adds in the ring, and its
    columns left and right of the data; zero_point as the loops see it. Of lanes that share a sum, the
    first has it all. weights : of `packing.centred_weights`."""
    left, right = _outside(spec.axes[2])
    sums = zero_point * weights[0].sum(axis=-1)  # [outer, D, H, W]
    parts = (sums, sums[..., :left], sums[..., sums.shape[-1] - right :])
    kinds = np.stack([part.sum(axis=-1) for part in parts], axis=-1)  # [outer, D, H, 3]
    rows = np.moveaxis(kinds, 0, -1).reshape(-1, spec.outer)
    packed = [pack_vector(row, spec, channels) for row in rows]
    stacked = np.stack(packed).reshape(*spec.kernel[:2], 3, -1, 1)
    return np.pad(stacked, [(0, 0)] * 4 + [(0, isa.parts - 1)]).reshape(*stacked.shape[:3], -1)


def _outside(width: Axis) -> tuple[int, int]:
    """Columns of the kernel that the first pixel finds left of the data, and the last one right of it."""
    last = (width.out - 1) * width.stride + width.kernel
    return width.before, max(0, last - width.before - width.size)


@dataclass(frozen=True, kw_only=True)
class RingDotBody(DotBody):
    """Only where `passes_over_columns`. parts : see `ring_parts`."""

    parts: Any

    def _accumulate(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        n, d, h, w = origin
        depth, height, width = self.spec.axes
        first, last = self._rows(h)
        with loops((depth.kernel,)) as (kd,):
            for begin, end in ((0, first), (last, height.kernel)):
                with tb.serial(begin, end) as kh:
                    self._add_part(acc, (kd, kh, _ROW), block)
            with tb.serial(first, last) as kh:
                row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
                columns = [(w + p) * width.stride for p in range(pixels)]

                def meanwhile(turn: PrimExpr, turns: int, kd: PrimExpr = kd, kh: PrimExpr = kh) -> None:
                    taps = (depth.kernel, height.kernel, turns)
                    self._fetch_ahead(pixels, origin, block, ((kd, kh, turn), taps))

                self._row(acc, (block, kd, kh), row, columns, w, meanwhile)

    def _rows(self, h: PrimExpr) -> tuple[PrimExpr, PrimExpr]:
        """The rows of the kernel that lie inside: first, and one past the last."""
        height = self.spec.axes[1]
        if not height.needs_padding or not height.dilation == height.spread == 1:
            return 0, height.kernel
        top = height.before - h * height.stride
        first, last = (_tir.max(0, _tir.min(height.kernel, row)) for row in (top, top + height.size))
        return first, last

    def _row(
        self, acc: Registers, at: Coordinates, row: Coordinates, columns: Coordinates, w: PrimExpr,
        meanwhile: Meanwhile,
    ) -> None:  # fmt: skip
        """One row of the kernel for a tile that begins at pixel `w`."""
        width = self.spec.axes[2]
        left, right = _outside(width)
        ends = ((w, 0), (w + len(acc), width.out))
        at_left, at_right = (_tir.EQ(_tir.IntImm("int32", 0) + i, j) for i, j in ends)
        kernel = width.kernel
        low, high = _tir.Select(at_left, left, 0), _tir.Select(at_right, kernel - right, kernel)
        self._columns(acc, at, row, columns, (low, high), meanwhile)
        if left:
            with tb.If(at_left), tb.Then():
                self._columns(acc[1:], at, row, columns[1:], (0, left), meanwhile)
                self._add_part(acc[:1], (*at[1:], _LEFT), at[0])
        if right:
            with tb.If(at_right), tb.Then():
                self._columns(acc[:-1], at, row, columns[:-1], (kernel - right, kernel), meanwhile)
                self._add_part(acc[-1:], (*at[1:], _RIGHT), at[0])

    def _columns(
        self, acc: Registers, at: Coordinates, row: Coordinates, columns: Coordinates,
        among: tuple[PrimExpr, PrimExpr], meanwhile: Meanwhile,
    ) -> None:  # fmt: skip
        """Columns [low, high) of the kernel for some pixels."""
        low, high = among
        isa = self.isa
        turns = self.spec.inner // (isa.reach * isa.unroll)
        if not acc:
            return
        with self._line(len(acc)).turns(low * turns, high * turns) as turn:
            meanwhile(turn, self.spec.axes[2].kernel * turns)
            for u in range(isa.unroll):
                load = turn * isa.unroll + u
                self._load(acc, (*at, load * isa.steps), row, columns, load * isa.reach)

    def _add_part(self, acc: Registers, at: Coordinates, block: PrimExpr) -> None:
        size, lanes = self.blocking.channels * self.isa.parts, self.isa.lanes
        for one in acc:
            for start in range(0, size, lanes):
                with tb.vectorized(0, lanes) as lane:
                    place = (*at, block * size + start + lane)
                    tb.buffer_store(
                        one, ex.wrapping_add(one[start + lane], self.parts[place]), [start + lane]
                    )
