"""The plain kernel of all sums of products: output channels across the lanes of vectors.

    parallel over batch, blocks of output channels, rows:
        for each tile of a row:
            acc[pixels, channels] = bias            (registers)
            for each tap and input channel:
                acc[p] += x[p] * weights[channels]  (one widened weight vector for all pixels)
            epilogue on acc, store

Sums wrap (`expressions.wrapping_add`), so a partial sum may leave int32 where the whole does not.
Padding, and the zeros that a transposed convolution puts between pixels, come from a workspace
filled with the zero point. Weights known only at run time are packed into a workspace first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.blocking import Blocking
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import STEP_MACS, loops, tiles, worth_threads

Coordinates = Sequence[PrimExpr]


@dataclass(frozen=True)
class Source:
    """Where activations are read.

    read : (n, d, h, w, j) -> element j counted from pixel w of a row; rows are contiguous, so j
    may run on into the pixels that follow. centre : subtracted from each, or None.
    """

    read: Callable[[Coordinates], PrimExpr]
    centre: PrimExpr | None = None


@dataclass(frozen=True)
class LinearBody:
    """Everything the loops need, once operands are buffers.

    weights : [(batch *) blocks, D, H, W * inner, channels]. initial : first value of the
    accumulator at a position of the blocks. store : writes the output at (n, d, h, w, c).
    per_batch : every batch element has weights of its own.
    """

    spec: LinearSpec
    blocking: Blocking
    source: Source
    weights: Any
    initial: Callable[[PrimExpr], PrimExpr]
    store: Callable[[Coordinates, PrimExpr], None]
    per_batch: bool = False

    @property
    def blocks(self) -> int:
        """Blocks of output channels in one group."""
        return -(-self.spec.outer // self.blocking.channels)

    def emit(self) -> None:
        """All loops. Plain ones run over tiles, so that short rows need no short tiles."""
        spec = self.spec
        _, height, width = spec.axes
        outer = (spec.batch, spec.groups * self.blocks, spec.axes[0].out, height.out)
        groups = tiles(width.out, self.blocking.pixels)
        sizes = (*outer, width.out, self.blocking.channels, *spec.kernel, spec.inner)
        parallel = worth_threads(sizes, STEP_MACS)
        if isinstance(height.out, int) and isinstance(outer[2], int) and height.out * outer[2] == 1:
            for size, count, start in groups:
                with loops((*outer, count), parallel) as (n, block, d, h, tile):
                    self._tile(size, (n, d, h, start + tile * size), block)
            return
        with loops(outer, parallel) as (n, block, d, h):
            for size, count, start in groups:
                with loops((count,)) as (tile,):
                    self._tile(size, (n, d, h, start + tile * size), block)

    def _tile(self, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        lanes = self.blocking.channels
        acc = registers(pixels * lanes, "int32")
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                tb.buffer_store(acc, ex.cast(self.initial(block * lanes + lane), "int32"), [p * lanes + lane])
        self._accumulate(acc, pixels, origin, block)
        tail = self.spec.outer % lanes
        if not tail:
            self._finish(acc, pixels, origin, block, lanes)
        elif self.blocks == 1:
            self._finish(acc, pixels, origin, block, tail)
        else:
            self._finish_either(acc, pixels, origin, block, tail)

    def _accumulate(self, acc: Any, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        spec, lanes = self.spec, self.blocking.channels
        n, d, h, w = origin
        depth, height, width = spec.axes
        merged = spec.groups == 1 and (width.dilation == 1 or width.kernel == 1)
        taps = (depth.kernel, height.kernel, 1 if merged else width.kernel)
        run = spec.inner * (width.kernel if merged else 1)
        at = n * (spec.groups * self.blocks) + block if self.per_batch else block
        first = _div(block, self.blocks) * spec.inner if spec.groups > 1 else 0
        with loops(taps[:1]) as (kd,), loops(taps[1:2]) as (kh,), loops(taps[2:]) as (kw,):
            with loops((run,)) as (j,):
                row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
                for p in range(pixels):
                    column = (w + p) * width.stride + kw * width.dilation
                    x = self._activation((*row, column, first + j))
                    with tb.vectorized(0, lanes) as lane:
                        weight = self.weights[at, kd, kh, kw * spec.inner + j, lane]
                        total = ex.wrapping_add(acc[p * lanes + lane], x * ex.cast(weight, "int32"))
                        tb.buffer_store(acc, total, [p * lanes + lane])

    def _activation(self, place: Coordinates) -> PrimExpr:
        x = ex.cast(self.source.read(place), "int32")
        return x if self.source.centre is None else x - ex.cast(self.source.centre, "int32")

    def _finish_either(self, acc: Any, pixels: int, origin: Coordinates, block: PrimExpr, tail: int) -> None:
        """The last block of a group has fewer channels than the others."""
        last = _mod(block, self.blocks) >= self.blocks - 1
        with tb.If(last):
            with tb.Then():
                self._finish(acc, pixels, origin, block, tail)
            with tb.Else():
                self._finish(acc, pixels, origin, block, self.blocking.channels)

    def _finish(self, acc: Any, pixels: int, origin: Coordinates, block: PrimExpr, lanes: int) -> None:
        n, d, h, w = origin
        size = self.blocking.channels
        first = block * size
        if self.spec.groups > 1:
            first = _div(block, self.blocks) * self.spec.outer + _mod(block, self.blocks) * size
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                value = ex.cast(acc[p * size + lane], "int32")
                self.store((n, d, h, w + p, first + lane), value)


@dataclass(frozen=True)
class DepthwiseBody:
    """The same for one input and output channel a group: data is read by vectors as well.

    weights : [D, H, W, channels].
    """

    spec: LinearSpec
    blocking: Blocking
    source: Source
    weights: Any
    initial: Callable[[PrimExpr], PrimExpr]
    store: Callable[[Coordinates, PrimExpr], None]

    def emit(self) -> None:
        spec = self.spec
        lanes = min(self.blocking.channels, spec.groups)
        blocks, tail = divmod(spec.groups, lanes)
        depth, height, width = spec.axes
        sizes = (spec.batch, spec.groups, depth.out, height.out, width.out, *spec.kernel)
        parallel = worth_threads(sizes, STEP_MACS)
        with loops((spec.batch, depth.out, height.out), parallel) as (n, d, h):
            for size, count, start in tiles(width.out, self.blocking.pixels):
                with loops((count,)) as (tile,):
                    origin = (n, d, h, start + tile * size)
                    with loops((blocks,)) as (block,):
                        self._tile(size, lanes, origin, block * lanes)
                    if tail:
                        self._tile(size, tail, origin, blocks * lanes)

    def _tile(self, pixels: int, lanes: int, origin: Coordinates, channel: PrimExpr) -> None:
        n, d, h, w = origin
        depth, height, width = self.spec.axes
        acc = registers(pixels * lanes, "int32")
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                tb.buffer_store(acc, ex.cast(self.initial(channel + lane), "int32"), [p * lanes + lane])
        with (
            loops((depth.kernel,)) as (kd,),
            loops((height.kernel,)) as (kh,),
            loops((width.kernel,)) as (kw,),
        ):
            row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
            for p in range(pixels):
                column = (w + p) * width.stride + kw * width.dilation
                with tb.vectorized(0, lanes) as lane:
                    x = self.source.read((*row, column, channel + lane))
                    weight = self.weights[kd, kh, kw, channel + lane]
                    product = ex.cast(x, "int32") * ex.cast(weight, "int32")
                    total = ex.wrapping_add(acc[p * lanes + lane], product)
                    tb.buffer_store(acc, total, [p * lanes + lane])
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                self.store((n, d, h, w + p, channel + lane), ex.cast(acc[p * lanes + lane], "int32"))


def _div(i: PrimExpr, by: int) -> PrimExpr:
    return i if by == 1 else i // by


def _mod(i: PrimExpr, by: int) -> PrimExpr:
    return 0 if by == 1 else i % by
