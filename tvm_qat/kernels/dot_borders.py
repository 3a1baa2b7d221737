"""Convolutions that read their activations where they lie, and pass over the taps beyond the border.

Rows of the kernel beyond it are left out of the loop over rows. Tiles that reach over it sideways
stand alone, at a place known when code is made: there each column of the kernel has a loop of its
own, over those pixels that it serves. So padding costs neither a copy nor products with zeros; it
must be zeros, and the channels whole steps of the instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tvm_qat.kernels.dot import DotBody, Meanwhile
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, Registers
from tvm_qat.kernels.linear_spec import Axis, LinearSpec
from tvm_qat.kernels.loops import STEP_MACS, loops, tiles, worth_threads


def border_tiles(
    axis: Axis, most: int, farthest: Callable[[int], int] = lambda size: size - 1
) -> Iterator[tuple[int, int, int]]:
    """(size, count, start) of tiles as in `loops.tiles`; those that reach over the border stand alone.

    farthest : of a tile of `size` pixels, the last one that it reads for.
    """
    for size, count, start in tiles(axis.out, most):
        reach = farthest(size) * axis.stride + (axis.kernel - 1) * axis.dilation
        inside: list[int] = []
        for w in range(start, start + count * size, size):
            first = w * axis.stride - axis.before
            if first >= 0 and first + reach < axis.size:
                inside.append(w)
            else:
                yield size, 1, w
        if inside:
            yield size, len(inside), inside[0]


def skips_borders(spec: LinearSpec, isa: DotProduct) -> bool:
    """Whether `BorderDotBody` can run it, if its padding is zeros, and shall: where a tap has few steps,
    loops of its own cost more than the copy (measured with 16 channels)."""
    depth, height, width = spec.axes
    rows = not height.needs_padding or (height.kernel > 1 and height.dilation == 1)
    known = isinstance(width.size, int) and isinstance(width.out, int)
    dense = not depth.needs_padding and height.spread == width.spread == 1
    loads, rest = divmod(spec.inner, isa.reach)
    enough = not rest and loads >= 2 * isa.unroll and isa.pixels == 1
    return spec.channels_last and dense and rows and known and enough


@dataclass(frozen=True, kw_only=True)
class BorderDotBody(DotBody):
    """Coordinates are those of a padded input; the source takes the padding off. zero_ring is set."""

    def emit(self) -> None:
        spec = self.spec
        depth, height, width = spec.axes
        outer = (spec.batch, spec.groups * self.blocks, depth.out, height.out)
        sizes = (*outer, width.out, self.blocking.channels, *spec.kernel, spec.inner)
        with self._row_loops(worth_threads(sizes, STEP_MACS)) as (n, block, d, h):
            for size, count, start in border_tiles(width, self.blocking.pixels):
                with loops((count,)) as (tile,):
                    self._tile(size, (n, d, h, start + tile * size), block)

    def _accumulate(self, acc: Registers, pixels: int, origin: Coordinates, block: PrimExpr) -> None:
        n, d, h, w = origin
        depth, height, width = self.spec.axes
        served = [self._served(w, pixels, kw) for kw in range(width.kernel)]
        if all(len(one) == pixels for one in served):
            super()._accumulate(acc, pixels, origin, block)
            return
        with loops((depth.kernel,)) as (kd,), self._kernel_rows(h, pixels) as kh:
            row = (n, d * depth.stride + kd * depth.dilation, h * height.stride + kh)
            for taps, inside in self._runs(served):
                columns = [(w + p) * width.stride + taps[0] * width.dilation for p in inside]

                def meanwhile(turn: PrimExpr, turns: int, kd: PrimExpr = kd, kh: PrimExpr = kh) -> None:
                    extents = (depth.kernel, height.kernel, turns)
                    self._fetch_ahead(pixels, origin, block, ((kd, kh, turn), extents))

                self._add_taps([acc[p] for p in inside], (block, kd, kh), row, columns, taps, meanwhile)

    def _served(self, w: PrimExpr, pixels: int, kw: int) -> list[int]:
        """The pixels of a tile for which column `kw` of the kernel lies inside."""
        width = self.spec.axes[2]
        if not isinstance(w, int):
            return list(range(pixels))
        first = w * width.stride + kw * width.dilation - width.before
        return [p for p in range(pixels) if 0 <= first + p * width.stride < width.size]

    def _runs(self, served: Sequence[list[int]]) -> list[tuple[range, list[int]]]:
        """(columns of the kernel, pixels that they serve); neighbours that serve alike are joined."""
        runs: list[tuple[range, list[int]]] = []
        for kw, inside in enumerate(served):
            if self.spec.merges_columns and runs and runs[-1][1] == inside:
                runs[-1] = (range(runs[-1][0].start, kw + 1), inside)
            elif inside:
                runs.append((range(kw, kw + 1), inside))
        return runs

    def _add_taps(
        self, acc: Registers, tap: Coordinates, row: Coordinates, columns: Coordinates, taps: range,
        meanwhile: Meanwhile,
    ) -> None:  # fmt: skip
        """Adds neighbouring columns of the kernel to the pixels that they serve."""
        spec, isa = self.spec, self.isa
        before, count = (spec.inner * many // isa.reach for many in (taps.start, len(taps)))
        first = (tap[0] // self.blocks) * spec.inner if spec.groups > 1 else 0
        unroll = isa.unroll if count % isa.unroll == 0 else 1
        with self._line(len(acc)).turns(0, count // unroll) as i:
            meanwhile(before // unroll + i, spec.inner * spec.axes[2].kernel // isa.reach // unroll)
            for u in range(unroll):
                at = (*tap, (before + i * unroll + u) * isa.steps)
                self._load(acc, at, row, columns, first + (i * unroll + u) * isa.reach)
