"""Depthwise convolution by dot-product instructions of four bytes.

A dot product adds four neighbouring bytes, but neighbours in memory are channels, which depthwise
must not add. So four columns are interleaved, channel by channel, once for all outputs that they
serve; a kernel of three columns at stride 1 gets two outputs out of four columns:

    columns w .. w+3 of 16 channels  ->  x = [c0w0 c0w1 c0w2 c0w3 | c1w0 ...]
    acc[w]   = dot(acc[w],   x, [k0 k1 k2 0])
    acc[w+1] = dot(acc[w+1], x, [0 k0 k1 k2])

Interleaving works within 128 bits, as the instructions do that interleave and pack: see
`depthwise_layout`. Columns beyond the border are known when code is made, and are constants in it;
rows beyond it are passed over, or added as constants where their zero point is not 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.blocking import Blocking
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.depthwise_layout import (
    CHUNK,
    COLUMNS,
    Block,
    channel_blocks,
    outputs_of_window,
)
from tvm_qat.kernels.dot_borders import border_tiles
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Registers, Sink, Source
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import loops, worth_threads
from tvm_qat.kernels.narrowing import Sums, packed

_tir = tvm.tirx


@dataclass(frozen=True)
class DepthwiseDotBody:
    """weights : see `depthwise_layout.pack_dot_depthwise`; initial takes a position of the same order.

    zero : of the activations, outside of their borders. packs : the epilogue's constants are in the
    order of positions, so that whole blocks are narrowed by the instruction set's own packs.
    """

    spec: LinearSpec
    blocking: Blocking
    source: Source
    weights: Any
    initial: Callable[[PrimExpr], PrimExpr]
    sink: Sink
    isa: DotProduct
    zero: PrimExpr
    is_zero: bool
    packs: bool

    def emit(self) -> None:
        spec = self.spec
        depth, height, width = spec.axes
        sizes = (spec.batch, spec.groups, depth.out, height.out, width.out)
        full, rest = channel_blocks(spec.groups, self.isa)
        size = self.blocking.channels
        with loops((spec.batch, depth.out, height.out), worth_threads(sizes)) as (n, d, h):
            for pixels, count, start in self._segments(1) if full else ():
                with loops((count,)) as (tile,), loops((full,)) as (block,):
                    origin = (n, d, h, start + tile * pixels)
                    self._tile(pixels, origin, Block(block * size, block * size, size))
            for one in rest:
                for pixels, count, start in self._segments(size // one.channels):
                    with loops((count,)) as (tile,):
                        self._tile(pixels, (n, d, h, start + tile * pixels), one)

    def _segments(self, groups: int) -> Iterator[tuple[int, int, int]]:
        def farthest(size: int) -> int:
            return max(self._pixel(a, groups - 1, groups) for a in range(self._sets(size, groups)))

        return border_tiles(self.spec.axes[2], self.blocking.pixels * groups, farthest)

    def _sets(self, pixels: int, groups: int) -> int:
        """Blocks of accumulators for a tile of `pixels`; some of them may end up beyond it."""
        outputs = outputs_of_window(self.spec)
        return pixels if groups == 1 else -(-pixels // (groups * outputs)) * outputs

    def _pixel(self, a: int, group: int, groups: int) -> int:
        """The pixel of a tile that block `a` of accumulators adds up in chunks of `group`."""
        outputs = outputs_of_window(self.spec)
        return (a // outputs * groups + group) * outputs + a % outputs

    def _tile(self, pixels: int, origin: Coordinates, block: Block) -> None:
        size, (depth, height, _) = self.blocking.channels, self.spec.axes
        n, d, h, w = origin
        acc = [registers(size, "int32") for _ in range(self._sets(pixels, size // block.channels))]
        for one in acc:
            with tb.vectorized(0, size) as lane:
                tb.buffer_store(one, ex.cast(self.initial(block.position + lane), "int32"), [lane])
        with loops((depth.kernel,)) as (kd,), loops((height.kernel,)) as (kh,):
            row = h * height.stride + kh * height.dilation - height.before
            place = (n, d * depth.stride + kd * depth.dilation, row)
            self._row_or_border(acc, (kd, kh), place, w, block)
        self._finish(acc, pixels, origin, block)

    def _row_or_border(
        self, acc: Registers, tap: Coordinates, row: Coordinates, w: PrimExpr, block: Block
    ) -> None:
        height = self.spec.axes[1]
        if not height.needs_padding:
            self._row(acc, tap, row, w, block)
            return
        with tb.If(_tir.all(row[2] >= 0, row[2] < height.size)):
            with tb.Then():
                self._row(acc, tap, row, w, block)
            if not self.is_zero:
                with tb.Else():
                    self._row(acc, tap, None, w, block)

    def _row(
        self, acc: Registers, tap: Coordinates, row: Coordinates | None, w: PrimExpr, block: Block
    ) -> None:
        """Adds one row of the kernel to all pixels; a row of the zero point, where `row` is None."""
        width, outputs = self.spec.axes[2], outputs_of_window(self.spec)
        groups = self.blocking.channels // block.channels
        for a in range(0, len(acc), outputs):
            served = min(outputs, len(acc) - a)
            taps = served + width.kernel - 1
            first = (w + self._pixel(a, 0, groups)) * width.stride - width.before
            for turn, start in enumerate(range(0, taps, COLUMNS)):
                columns = [first + k * width.dilation for k in range(start, min(start + COLUMNS, taps))]
                data = self._interleaved(row, columns, block)
                for variant in range(served):
                    self._add(acc[a + variant], data, (*tap, turn + variant), block)

    def _interleaved(
        self, row: Coordinates | None, columns: Sequence[PrimExpr], block: Block
    ) -> list[PrimExpr]:
        """Four columns of a block; missing ones repeat the last, under zero weights."""
        filled, size = [*columns, *[columns[-1]] * (COLUMNS - len(columns))], self.blocking.channels
        vectors = [self._column(row, column, block) for column in filled]
        halves = (False, True)
        pairs = [[_unpack(vectors[i], vectors[i + 1], size, 1, high) for i in (0, 2)] for high in halves]
        fours = [_unpack(pair[0], pair[1], size, 2, high) for pair in pairs for high in halves]
        return [_tir.reinterpret(f"{self.zero.ty.dtype}x{size}", four) for four in fours]

    def _column(self, row: Coordinates | None, column: PrimExpr, block: Block) -> PrimExpr:
        """The block's channels at `column`, and at those of its other groups of pixels."""
        width, size = self.spec.axes[2], self.blocking.channels
        step = outputs_of_window(self.spec) * width.stride
        parts = []
        for group in range(size // block.channels):
            at = column + group * step
            if row is None or (isinstance(at, int) and not 0 <= at < width.size):
                parts.append(_tir.Broadcast(self.zero, block.channels))
            else:
                parts.append(self.source.vector((*row, at, block.channel), block.channels))
        return parts[0] if len(parts) == 1 else _tir.Shuffle(parts, [ex.int32(i) for i in range(size)])

    def _add(self, acc: Any, data: Sequence[PrimExpr], tap: Coordinates, block: Block) -> None:
        lanes = self.isa.lanes
        for q, four in enumerate(data):
            place = (block.position + q * lanes) * COLUMNS
            weight = self.weights.vload([*tap, place], f"int8x{lanes * COLUMNS}")
            total = self.isa.dot(acc.vload([q * lanes], f"int32x{lanes}"), four, weight)
            tb.buffer_store(acc, total, [_tir.Ramp(q * lanes, 1, lanes)])

    def _finish(self, acc: Registers, pixels: int, origin: Coordinates, block: Block) -> None:
        n, d, h, w = origin
        groups = self.blocking.channels // block.channels
        for a, one in enumerate(acc):
            done = self._packed(one, (n, d, h, w, block.position)) if self.packs else self._in_order(one)
            for group in range(groups):
                pixel = self._pixel(a, group, groups)
                if pixel < pixels:
                    place = (n, d, h, w + pixel, block.channel)
                    self._store(done, group * block.channels, place, block.channels)

    def _packed(self, acc: Any, place: Coordinates) -> Any:
        """Bytes in the order of channels; the epilogue's constants are read by position."""
        size = self.blocking.channels
        vectors = [
            Sums(acc, first, self.isa.lanes, (*place[:4], place[4] + first))
            for first in range(0, size, self.isa.lanes)
        ]
        words = _tir.reinterpret(f"int32x{self.isa.lanes}", packed(self.isa, self.sink, vectors))
        # Narrowing puts its bytes in the order of accumulators; taken back, both cost nothing.
        parts = self.isa.lanes // 4
        order = [ex.int32(q * parts + part) for part in range(parts) for q in range(4)]
        done = registers(size, self.sink.output.dtype)
        ordered = _tir.reinterpret(f"{done.dtype}x{size}", _tir.Shuffle([words], order))
        tb.buffer_store(done, ordered, [_tir.Ramp(0, 1, size)])
        return done

    def _in_order(self, acc: Any) -> Any:
        """Accumulators in the order of channels."""
        lanes = self.isa.lanes
        vectors = [acc.vload([q * lanes], f"int32x{lanes}") for q in range(4)]
        done = registers(4 * lanes, "int32")
        for chunk in range(lanes // 4):
            order = [ex.int32(q * lanes + 4 * chunk + i) for q in range(4) for i in range(4)]
            tb.buffer_store(done, _tir.Shuffle(vectors, order), [_tir.Ramp(chunk * CHUNK, 1, CHUNK)])
        return done

    def _store(self, done: Any, first: int, place: Coordinates, count: int) -> None:
        if self.packs:
            self.sink.store_vector(place, done.vload([first], f"{done.dtype}x{count}"), count)
            return
        with tb.vectorized(0, count) as lane:
            self.sink.store((*place[:4], place[4] + lane), done[first + lane])


def _unpack(a: PrimExpr, b: PrimExpr, total: int, size: int, high: bool) -> PrimExpr:
    """Elements of `size` bytes of a and b in turns, from the low or high halves of every 128 bits.

    total : bytes of a, and of b.
    """
    dtype, count, half = f"uint{8 * size}", total // size, CHUNK // size // 2
    starts = range(half if high else 0, count, 2 * half)
    order = [ex.int32(i + of) for start in starts for i in range(start, start + half) for of in (0, count)]
    vectors = [_tir.reinterpret(f"{dtype}x{count}", x) for x in (a, b)]
    return _tir.Shuffle(vectors, order)
