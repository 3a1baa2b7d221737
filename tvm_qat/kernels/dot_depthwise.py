"""Depthwise convolution by dot-product instructions of four bytes.

A dot product adds four neighbouring bytes, but neighbours in memory are channels, which depthwise
must not add. So four columns are interleaved, channel by channel, once for all outputs that they
serve; a kernel of three columns at stride 1 gets two outputs out of four columns:

    columns w .. w+3 of 16 channels  ->  x = [c0w0 c0w1 c0w2 c0w3 | c1w0 ...]
    acc[w]   = dot(acc[w],   x, [k0 k1 k2 0])
    acc[w+1] = dot(acc[w+1], x, [0 k0 k1 k2])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, DepthwiseBody
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import loops, tiles, worth_threads
from tvm_qat.qnn.arithmetic import Array

_tir = tvm.tirx
_COLUMNS = 4


def outputs_of_window(spec: LinearSpec) -> int:
    """Neighbouring outputs that four columns serve; 1 where windows do not overlap that way."""
    width = spec.axes[2]
    dense = width.stride == 1 and width.dilation == 1 and width.kernel <= _COLUMNS
    return _COLUMNS - width.kernel + 1 if dense else 1


def pack_dot_depthwise(spec: LinearSpec, weights: Array) -> Array:
    """[channels, 1, D, H, W, 1] -> int8 [D, H, variants, channels * 4].

    A variant is the kernel's columns moved by 0, 1, ... within a window, or one group of four
    columns after the other where a window serves one output.
    """
    taps = np.moveaxis(weights[:, 0, ..., 0], 0, -1)  # [D, H, W, channels]
    depth, height, width, channels = taps.shape
    outputs = outputs_of_window(spec)
    variants = outputs if outputs > 1 else -(-width // _COLUMNS)
    packed = np.zeros((depth, height, variants, channels, _COLUMNS), np.int8)
    for variant in range(variants):
        for column in range(width):
            place = column + variant if outputs > 1 else column - variant * _COLUMNS
            if 0 <= place < _COLUMNS:
                packed[:, :, variant, :, place] = taps[:, :, column]
    return packed.reshape(depth, height, variants, channels * _COLUMNS)


@dataclass(frozen=True, kw_only=True)
class DepthwiseDotBody(DepthwiseBody):
    """weights : see `pack_dot_depthwise`. There are at least as many channels as lanes."""

    isa: DotProduct

    def emit(self) -> None:
        """The last block of channels ends with the last channel, and may repeat some before it."""
        spec, size = self.spec, self.blocking.channels
        blocks, tail = divmod(spec.groups, size)
        rest = -(-tail // self.isa.lanes) * self.isa.lanes
        depth, height, width = spec.axes
        sizes = (spec.batch, spec.groups, depth.out, height.out, width.out)
        with loops((spec.batch, depth.out, height.out), worth_threads(sizes)) as (n, d, h):
            for pixels, count, start in tiles(width.out, self.blocking.pixels):
                with loops((count,)) as (tile,):
                    origin = (n, d, h, start + tile * pixels)
                    with loops((blocks,)) as (block,):
                        self._tile(pixels, size, origin, block * size)
                    if tail:
                        self._tile(pixels, rest, origin, spec.groups - rest)

    def _tile(self, pixels: int, lanes: int, origin: Coordinates, channel: PrimExpr) -> None:
        n, d, h, w = origin
        depth, height, _ = self.spec.axes
        acc = [registers(lanes, "int32") for _ in range(pixels)]
        for one in acc:
            with tb.vectorized(0, lanes) as lane:
                tb.buffer_store(one, ex.cast(self.initial(channel + lane), "int32"), [lane])
        with loops((depth.kernel,)) as (kd,), loops((height.kernel,)) as (kh,):
            row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
            for first in range(0, lanes, self.isa.lanes):
                self._row(acc, (kd, kh), row, w, first, channel + first)
        for p, one in enumerate(acc):
            with tb.vectorized(0, lanes) as lane:
                self.sink.store((n, d, h, w + p, channel + lane), one[lane])

    def _row(
        self,
        acc: Sequence[Any],
        tap: Coordinates,
        row: Coordinates,
        w: PrimExpr,
        first: int,
        channel: PrimExpr,
    ) -> None:
        """Adds one row of the kernel to one vector of channels of all pixels."""
        width, outputs = self.spec.axes[2], outputs_of_window(self.spec)
        if outputs > 1:
            for p in range(0, len(acc), outputs):
                served = min(outputs, len(acc) - p)
                columns = [w + p + i for i in range(served + width.kernel - 1)]
                data = self._interleaved(row, columns, channel)
                for variant in range(served):
                    self._add(acc[p + variant], data, tap, variant, first, channel)
            return
        for p, one in enumerate(acc):
            for group, start in enumerate(range(0, width.kernel, _COLUMNS)):
                stop = min(start + _COLUMNS, width.kernel)
                columns = [(w + p) * width.stride + k * width.dilation for k in range(start, stop)]
                self._add(one, self._interleaved(row, columns, channel), tap, group, first, channel)

    def _interleaved(self, row: Coordinates, columns: Sequence[PrimExpr], channel: PrimExpr) -> PrimExpr:
        """Four columns of a vector of channels; missing ones repeat the last, under zero weights."""
        lanes = self.isa.lanes
        filled = [*columns, *[columns[-1]] * (_COLUMNS - len(columns))]
        vectors = [self.source.vector((*row, column, channel), lanes) for column in filled]
        order = [ex.int32(k * lanes + lane) for lane in range(lanes) for k in range(_COLUMNS)]
        return _tir.reinterpret(f"int32x{lanes}", _tir.Shuffle(vectors, order))

    def _add(
        self, acc: Any, data: PrimExpr, tap: Coordinates, variant: int, first: int, channel: PrimExpr
    ) -> None:
        lanes = self.isa.lanes
        weight = self.weights.vload([*tap, variant, channel * _COLUMNS], f"int8x{lanes * _COLUMNS}")
        total = self.isa.dot(acc.vload([first], f"int32x{lanes}"), data, weight)
        tb.buffer_store(acc, total, [_tir.Ramp(first, 1, lanes)])
