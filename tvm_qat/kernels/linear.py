"""The plain kernel of all sums of products: output channels across the lanes of vectors.

    parallel over batch, blocks of output channels, rows (see `blocks_first`):
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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.blocking import Blocking
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import Narrow
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import STEP_MACS, loops, product, tiles, worth_threads
from tvm_qat.kernels.operands import Site, is_one
from tvm_qat.kernels.terms import Saturated, Term

Coordinates = Sequence[PrimExpr]
Group = tuple[int, Any, Any]
"""(pixels of a tile, number of such tiles, first pixel) in a row, see `loops.tiles`."""
Registers = Sequence[Any]
"""The accumulators of a tile: a buffer of its own for each pixel. TVM keeps small ones on the stack,
from where LLVM moves them to registers; large ones it would allocate."""


@dataclass(frozen=True)
class Source:
    """Where activations are read.

    index : (n, d, h, w, j) -> index in `buffer` of element j counted from pixel w of a row; rows
    are contiguous, so j may run on into the pixels that follow. centre : subtracted from each
    element, or None.
    """

    buffer: Any
    index: Callable[[Coordinates], tuple[PrimExpr, ...]]
    centre: PrimExpr | None = None

    def read(self, place: Coordinates) -> PrimExpr:
        return self.buffer[self.index(place)]

    def vector(self, place: Coordinates, count: int) -> PrimExpr:
        """The element at `place` and those that follow it."""
        return self.buffer.vload(list(self.index(place)), f"{self.buffer.dtype}x{count}")


@dataclass(frozen=True)
class Sink:
    """Where results go: the epilogue's term, what it reads, and the output.

    place_of : from (n, d, h, w, c) to the output's index. residuals : those of the buffers that the
    term reads at that index.
    """

    term: Term
    buffers: Mapping[str, Any]
    output: Any
    place_of: Callable[[Coordinates], Sequence[PrimExpr]]
    residuals: Sequence[Any] = ()

    def store(self, place: Coordinates, value: PrimExpr) -> None:
        site = self._site(place, value)
        tb.buffer_store(self.output, self.term(site), list(site.index))

    def whole(self, place: Coordinates, value: PrimExpr) -> PrimExpr:
        """The result before it is narrowed; only where the term is Saturated."""
        assert isinstance(self.term, Saturated)
        return self.term.whole(self._site(place, value))

    def narrowed(self, parts: Sequence[PrimExpr], narrow: Narrow, lanes: int) -> PrimExpr:
        """What `whole` gave for `lanes` neighbours, as a vector of bytes."""
        term, site = self.term, Site(self.buffers, ())
        assert isinstance(term, Saturated)
        shift = term.shift(site) if term.shift else None
        return term.clamped(site, narrow(parts, shift, term.dtype), lanes)

    def store_vector(self, place: Coordinates, vector: PrimExpr, lanes: int) -> None:
        """Neighbouring channels at once; the output must be channels-last."""
        *outer, last = self.place_of(place)
        place = tvm.tirx.Ramp(last, 1, lanes) if lanes > 1 else last
        tb.buffer_store(self.output, vector, [*outer, place])

    def _site(self, place: Coordinates, value: PrimExpr) -> Site:
        return Site(self.buffers, tuple(self.place_of(place)), value)


@dataclass(frozen=True)
class LinearBody:
    """Everything the loops need, once operands are buffers.

    weights : [(batch *) blocks, D, H, W * inner, channels]. initial : first value of the
    accumulator at a position of the blocks.
    per_batch : every batch element has weights of its own.
    """

    spec: LinearSpec
    blocking: Blocking
    source: Source
    weights: Any
    initial: Callable[[PrimExpr], PrimExpr]
    sink: Sink
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
            for together in [groups] if self.sizes_together else [[group] for group in groups]:
                strips = [self._strips(count) for _, count, _ in together]
                with loops((*outer, sum(strips)), parallel) as (n, block, d, h, strip):
                    self._one_strip(together, strips, strip, (n, d, h), block)
            return
        with self._row_loops(parallel) as (n, block, d, h):
            for group in groups:
                with loops((self._strips(group[1]),)) as (strip,):
                    self._strip(group, strip, (n, d, h), block)

    @property
    def sizes_together(self) -> bool:
        """Whether a block's tiles of both sizes follow each other, so that its weights are fetched once."""
        return False

    @property
    def blocks_first(self) -> bool:
        """Whether a block is done with the whole batch before the next one: where there are more weights
        than activations, those are better read again."""
        spec, weights = self.spec, product(self.weights.shape)
        data = product([spec.batch, *(axis.size for axis in spec.axes), spec.groups * spec.inner])
        known = isinstance(weights, int) and isinstance(data, int)
        return known and not self.per_batch and not is_one(spec.batch) and weights > data

    @contextmanager
    def _row_loops(self, parallel: bool) -> Iterator[Coordinates]:
        """(n, block, d, h), one after the other."""
        depth, height, _ = self.spec.axes
        blocks = self.spec.groups * self.blocks
        if self.blocks_first:
            with loops((blocks, self.spec.batch, depth.out, height.out), parallel) as (block, n, d, h):
                yield n, block, d, h
            return
        with loops((self.spec.batch, blocks, depth.out, height.out), parallel) as place:
            yield place

    def _one_strip(
        self, groups: Sequence[Group], strips: Sequence[Any], strip: PrimExpr, row: Coordinates,
        block: PrimExpr,
    ) -> None:  # fmt: skip
        """Step `strip` of a row."""
        if len(groups) == 1:
            self._strip(groups[0], strip, row, block)
            return
        with tb.If(strip < strips[0]):
            with tb.Then():
                self._strip(groups[0], _known(strip, strips[0]), row, block)
            with tb.Else():
                self._strip(groups[1], _known(strip - strips[0], strips[1]), row, block)

    def _strips(self, tiles: Any) -> Any:
        """How many steps run `tiles` tiles of a row."""
        return tiles

    def _strip(self, group: Group, strip: PrimExpr, row: Coordinates, block: PrimExpr) -> None:
        """One of these steps."""
        size, _, start = group
        self._tile(size, (*row, start + strip * size), block)

    def _tile(self, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        acc = self._accumulators(pixels, origin, block)
        self._accumulate(acc, pixels, origin, block)
        self._finish_block(acc, pixels, origin, block)

    def _accumulators(self, pixels: int, origin: Coordinates, block: PrimExpr) -> Registers:
        """Those of a tile, with their first values."""
        lanes = self.blocking.channels
        step = lanes & -lanes  # LLVM takes vectors apart whose length is no power of two
        acc = [registers(lanes, "int32") for _ in range(pixels)]
        for p in range(pixels):
            for first in range(0, lanes, step):
                with tb.vectorized(0, step) as lane:
                    start = self._start(origin[0], block, first + lane)
                    tb.buffer_store(acc[p], ex.cast(start, "int32"), [first + lane])
        return acc

    def _finish_block(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        """The epilogue of as many channels as the block has."""
        lanes = self.blocking.channels
        tail = self.spec.outer % lanes
        if not tail:
            self._finish(acc, pixels, origin, block, lanes)
        elif self.blocks == 1:
            self._finish(acc, pixels, origin, block, tail)
        else:
            self._finish_either(acc, pixels, origin, block, tail)

    def _start(self, _n: PrimExpr, block: PrimExpr, lane: PrimExpr) -> PrimExpr:
        """First value of an accumulator."""
        return self.initial(block * self.blocking.channels + lane)

    def _accumulate(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        spec, lanes = self.spec, self.blocking.channels
        n, d, h, w = origin
        depth, height, width = spec.axes
        taps = (depth.kernel, height.kernel, 1 if spec.merges_columns else width.kernel)
        at = n * (spec.groups * self.blocks) + block if self.per_batch else block
        first = _div(block, self.blocks) * spec.inner if spec.groups > 1 else 0
        with loops(taps[:1]) as (kd,), loops(taps[1:2]) as (kh,), loops(taps[2:]) as (kw,):
            with loops((spec.run,)) as (j,):
                row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh * height.dilation)
                for p in range(pixels):
                    column = (w + p) * width.stride + kw * width.dilation
                    x = self._activation((*row, column, first + j))
                    with tb.vectorized(0, lanes) as lane:
                        weight = self.weights[at, kd, kh, kw * spec.inner + j, lane]
                        total = ex.wrapping_add(acc[p][lane], x * ex.cast(weight, "int32"))
                        tb.buffer_store(acc[p], total, [lane])

    def _activation(self, place: Coordinates) -> PrimExpr:
        x = ex.cast(self.source.read(place), "int32")
        return x if self.source.centre is None else x - ex.cast(self.source.centre, "int32")

    def _finish_either(
        self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr, tail: int
    ) -> None:
        """The last block of a group has fewer channels than the others."""
        last = _mod(block, self.blocks) >= self.blocks - 1
        with tb.If(last):
            with tb.Then():
                self._finish(acc, pixels, origin, block, tail)
            with tb.Else():
                self._finish(acc, pixels, origin, block, self.blocking.channels)

    def _finish(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr, lanes: int) -> None:
        n, d, h, w = origin
        first = self._first_channel(block)
        for p in range(pixels):
            for start, count in self._vectors(lanes):
                with tb.vectorized(0, count) as lane:
                    value = ex.cast(acc[p][start + lane], "int32")
                    self.sink.store((n, d, h, w + p, first + start + lane), value)

    def _vectors(self, lanes: int) -> list[tuple[int, int]]:
        """(start, count) of the vectors that finish a pixel's sums."""
        return [(0, lanes)]

    def _first_channel(self, block: PrimExpr) -> PrimExpr:
        size = self.blocking.channels
        if self.spec.groups == 1:
            return block * size
        return _div(block, self.blocks) * self.spec.outer + _mod(block, self.blocks) * size


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
    sink: Sink

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
        acc = [registers(lanes, "int32") for _ in range(pixels)]
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                tb.buffer_store(acc[p], ex.cast(self.initial(channel + lane), "int32"), [lane])
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
                    total = ex.wrapping_add(acc[p][lane], product)
                    tb.buffer_store(acc[p], total, [lane])
        for p in range(pixels):
            with tb.vectorized(0, lanes) as lane:
                self.sink.store((n, d, h, w + p, channel + lane), ex.cast(acc[p][lane], "int32"))


def _known(i: PrimExpr, count: Any) -> PrimExpr:
    """A position among `count`."""
    return 0 if isinstance(count, int) and count == 1 else i


def _div(i: PrimExpr, by: int) -> PrimExpr:
    return i if by == 1 else i // by


def _mod(i: PrimExpr, by: int) -> PrimExpr:
    return 0 if by == 1 else i % by
