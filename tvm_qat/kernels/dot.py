"""Sums of products by dot-product instructions.

The loops are those of the plain kernel; a tile of accumulators stays in registers, and each step
adds `depth` products to every accumulator:

    for each tap, for each `depth` neighbouring channels:
        w[j]     = next vectors of weights
        x        = depth activations of a pixel, in every lane
        acc[p,j] = dot(acc[p,j], x, w[j])

Where the channels are no multiple of `depth`, the last step reads the last `depth` of them again,
with zero weights for those that were added already: nothing is read beyond a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.line import Line, line_of
from tvm_qat.kernels.linear import Coordinates, LinearBody, Registers
from tvm_qat.kernels.loops import product
from tvm_qat.kernels.narrowing import Sums, can_pack, store_packed

_tir = tvm.tirx

Meanwhile = Callable[[PrimExpr, int], None]
"""What a turn of the inner loop does besides: called with (turn, turns)."""


@dataclass(frozen=True, kw_only=True)
class DotBody(LinearBody):
    """weights : [blocks, D, H, taps * steps, lanes of a block * depth], see `packing.pack_dot`.

    zero_ring : the padding is stored as zeros, so that rows of it add nothing and are passed over.
    """

    isa: DotProduct
    zero_ring: bool = False

    def _accumulate(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        self._add_products(acc, pixels, origin, block)

    def _add_products(
        self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr,
        meanwhile: Meanwhile | None = None,
    ) -> None:  # fmt: skip
        spec, isa = self.spec, self.isa
        n, d, h, w = origin
        depth, height, width = spec.axes
        run = spec.run
        whole, rest = divmod(run, isa.depth)
        steps = whole + bool(rest)
        at = n * self.blocks + block if self.per_batch else block
        first = (block // self.blocks) * spec.inner if spec.groups > 1 else 0
        taps = (depth.kernel, height.kernel, 1 if spec.merges_columns else width.kernel)
        line = self._line(pixels)
        every = self._steps
        with (
            line.loop(taps[0], every) as kd,
            self._kernel_rows(h, pixels) as kh,
            line.loop(taps[2], every) as kw,
        ):
            row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
            columns = [(w + p) * width.stride + kw * width.dilation for p in range(pixels)]

            def step(index: PrimExpr, offset: PrimExpr) -> None:
                self._step(acc, (at, kd, kh, kw * steps + index), row, columns, first + offset)

            unroll = line.unroll if whole >= 2 * isa.unroll else 1
            with line.loop(whole // unroll, steps) as i:
                if meanwhile is not None:
                    meanwhile(i, whole // unroll)
                for u in range(unroll):
                    step(i * unroll + u, (i * unroll + u) * isa.depth)
            for k in range(whole - whole % unroll, whole):
                step(k, k * isa.depth)
            if rest:
                step(whole, run - isa.depth)

    def _line(self, pixels: int) -> Line:
        return line_of(self.isa, self.spec, pixels, self.blocking.channels // self.isa.lanes)

    @property
    def _steps(self) -> int:
        """Of all taps."""
        spec = self.spec
        taps = product(spec.kernel[:2]) if spec.merges_columns else product(spec.kernel)
        return int(taps * -(-spec.run // self.isa.depth))

    @contextmanager
    def _kernel_rows(self, h: PrimExpr, pixels: int) -> Iterator[PrimExpr]:
        """The rows of the kernel for a tile, without those that lie in a ring of zeros."""
        height = self.spec.axes[1]
        ring = self.zero_ring and height.needs_padding and height.dilation == height.spread == 1
        if not ring or height.kernel == 1:
            with self._line(pixels).loop(height.kernel, self._steps) as kh:
                yield kh
            return
        top = height.before - h * height.stride
        with tb.serial(_tir.max(0, top), _tir.min(height.kernel, height.size + top)) as kh:
            yield kh

    def _step(
        self, acc: Registers, at: Coordinates, row: Coordinates, columns: Coordinates, offset: PrimExpr
    ) -> None:
        isa = self.isa
        vectors = self.blocking.channels // isa.lanes
        width = isa.lanes * isa.depth
        weights = [self.weights.vload([*at, j * width], f"{isa.weight}x{width}") for j in range(vectors)]
        for p, column in enumerate(columns):
            data = isa.spread(self.source.vector((*row, column, offset), isa.depth), isa.lanes)
            for j, weight in enumerate(weights):
                total = isa.dot(acc[p].vload([j * isa.lanes], f"int32x{isa.lanes}"), data, weight)
                tb.buffer_store(acc[p], total, [_tir.Ramp(j * isa.lanes, 1, isa.lanes)])

    def _finish(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr, lanes: int) -> None:
        """Four vectors at once, of one pixel or several, are narrowed by the instruction set's packs."""
        spec, step = self.spec, self.isa.lanes
        if not can_pack(self.isa, self.sink.term) or not spec.channels_last:
            super()._finish(acc, pixels, origin, block, lanes)
            return
        n, d, h, w = origin
        first = self._first_channel(block)
        vectors = [
            Sums(acc[p], start, min(step, lanes - start), (n, d, h, w + p, first + start), p)
            for p in range(pixels)
            for start in range(0, lanes, step)
        ]
        for i in range(0, len(vectors), 4):
            store_packed(self.isa, self.sink, vectors[i : i + 4], lanes == spec.groups * spec.outer)
