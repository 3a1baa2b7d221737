"""Sums of products by dot-product instructions.

The loops are those of the plain kernel; a tile of accumulators stays in registers, and each step
adds `depth` products to every accumulator:

    for each tap, for each `depth` neighbouring channels:
        w[j]     = next vectors of weights
        x        = depth activations of a pixel, in every lane
        acc[p,j] = dot(acc[p,j], x, w[j])

Where the channels are no whole steps, the last ones are read again: see `runs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.dot_parts import add_parts, part_sums
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.line import Line, line_of
from tvm_qat.kernels.linear import Coordinates, LinearBody, Registers
from tvm_qat.kernels.loops import product
from tvm_qat.kernels.narrowing import Sums, can_pack, store_packed
from tvm_qat.kernels.prefetch import fetch_channels, next_block
from tvm_qat.kernels.runs import Load, last_loads, step_starts, whole_loads

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

    def _accumulators(self, pixels: int, origin: Coordinates, block: PrimExpr) -> Registers:
        """What the epilogue of the tile will read comes near during its sums."""
        if self.isa.prefetches and self.spec.channels_last:
            n, d, h, w = origin
            places = [(n, d, h, w + p, self._first_channel(block)) for p in range(pixels)]
            for residual in self.sink.residuals:
                for place in places:
                    fetch_channels(residual, self.sink.place_of(place), self.blocking.channels)
        return super()._accumulators(pixels, origin, block)

    @property
    def sizes_together(self) -> bool:
        """On aarch64 with NEON alone LLVM puts sums on the stack then."""
        return self.isa.prefetches

    def _tile(self, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        """Where lanes share a sum, they start at zero, and are added to the first values in the end."""
        if self.isa.parts == 1:
            super()._tile(pixels, origin, block)
            return
        parts = part_sums(self.isa, pixels, self.blocking.channels)
        self._accumulate(parts, pixels, origin, block)
        acc = self._accumulators(pixels, origin, block)
        add_parts(self.isa, parts, acc, self.blocking.channels)
        self._finish_block(acc, pixels, origin, block)

    def _accumulate(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        self._add_products(acc, pixels, origin, block)

    def _add_products(
        self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr,
        meanwhile: Meanwhile | None = None,
    ) -> None:  # fmt: skip
        spec, isa = self.spec, self.isa
        n, d, h, w = origin
        depth, height, width = spec.axes
        whole, last = whole_loads(isa, spec.run), last_loads(isa, spec.run)
        steps = len(step_starts(isa, spec.run))
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

            def load(first_step: PrimExpr, offset: PrimExpr, one: Load | None = None) -> None:
                self._load(acc, (at, kd, kh, kw * steps + first_step), row, columns, first + offset, one)

            unroll = line.unroll if whole >= 2 * line.unroll else 1
            with line.loop(whole // unroll, steps) as i:
                if meanwhile is not None:
                    meanwhile(i, whole // unroll)
                self._fetch_ahead(pixels, origin, at, ((kd, kh, kw, i), (*taps, whole // unroll)))
                for u in range(unroll):
                    load((i * unroll + u) * isa.steps, (i * unroll + u) * isa.reach)
            for k in range(whole - whole % unroll, whole):
                load(k * isa.steps, k * isa.reach)
            for one in last:
                load(one.step, one.first, one)

    def _fetch_ahead(
        self, pixels: int, origin: Coordinates, block: PrimExpr, turn: tuple[Coordinates, Sequence[int]]
    ) -> None:
        """A turn's share of the next block's weights. turn : (place, extents) among those of the tile."""
        ahead = (
            None
            if self.per_batch
            else next_block(self.isa, self.spec, self.weights, pixels, self.blocks_first)
        )
        if ahead is None:
            return
        depth, height, width = self.spec.axes
        n, d, h, w = origin
        plane = n * depth.out + d if self.blocks_first else d
        first = (plane * height.out + h) * width.out + w
        place, extents = turn
        which: PrimExpr = 0
        for at, extent in zip(place, extents, strict=True):
            which = which * extent + at
        ahead.fetch(block, (first, pixels), (which, product(extents)))

    def _line(self, pixels: int) -> Line:
        return line_of(self.isa, self.spec, pixels, self.isa.sums(self.blocking.channels))

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

    def _load(
        self, acc: Registers, at: Coordinates, row: Coordinates, columns: Coordinates, offset: PrimExpr,
        one: Load | None = None,
    ) -> None:  # fmt: skip
        """Adds the steps of one load, a whole one or `one`. at : of the first of them among the weights."""
        isa = self.isa
        one = one or Load(0, isa.steps, 0, 0)
        data = self._activations(row, columns, offset, isa.depth * one.steps)
        *outer, step = at
        for i in range(one.used, one.steps):
            self._step(acc, (*outer, step + i - one.used), [each[i] for each in data])

    def _activations(
        self, row: Coordinates, columns: Coordinates, offset: PrimExpr, count: int
    ) -> list[list[PrimExpr]]:
        """Those of each vector of accumulators' pixels, for each step of a load of `count`."""
        isa = self.isa
        return [
            isa.spread([self.source.vector((*row, column, offset), count)], isa.lanes) for column in columns
        ]

    def _step(self, acc: Registers, at: Coordinates, data: Sequence[PrimExpr]) -> None:
        """acc, data : of each pixel, or pair of pixels."""
        isa = self.isa
        vectors = self.blocking.channels // isa.channels
        width = isa.channels * isa.depth
        weights = [self.weights.vload([*at, j * width], f"{isa.weight}x{width}") for j in range(vectors)]
        places = [(p, j) for p in range(len(data)) for j in range(vectors)]
        for p, j in sorted(places, key=lambda place: place[1]) if isa.keeps_activations else places:
            total = isa.dot(acc[p].vload([j * isa.lanes], f"int32x{isa.lanes}"), data[p], weights[j])
            tb.buffer_store(acc[p], total, [_tir.Ramp(j * isa.lanes, 1, isa.lanes)])

    def _vectors(self, lanes: int) -> list[tuple[int, int]]:
        """One that is no power of two would have LLVM keep all sums as such a vector, in parts."""
        if lanes & (lanes - 1) == 0:
            return super()._vectors(lanes)
        size = self.isa.lanes
        return [(start, min(size, lanes - start)) for start in range(0, lanes, size)]

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
