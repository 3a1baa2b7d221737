"""How many registers the inner loop of a dot-product kernel needs, and which loops must stay loops.

LLVM writes short loops out. What is then one straight line it rearranges as it likes: it loads an
activation once for all the steps that read it, and keeps it; it adds products in another order, and
keeps those; and the epilogue's constants come to stand beside the sums. A line needs

    sums + max(weights of a step + an activation + activations kept for later, the epilogue)

where a load brings the activations of one step; where it brings several, those of all pixels and one
vector of weights take the place of the first two.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import registers, tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import loops, product
from tvm_qat.kernels.runs import load_starts, whole_loads

_WRITTEN_OUT = 300
"""Dot products of a loop that LLVM writes out, at most (its threshold is 300 instructions)."""


def pixels_of_line(isa: DotProduct, spec: LinearSpec, pixels: int, vectors: int) -> int:
    """At most `pixels`, as many as fit where a tap has too few steps for a loop over them."""
    steps, taps = -(-spec.run // isa.depth), spec.kernel[:2] if spec.merges_columns else spec.kernel
    if whole_loads(isa, spec.run) > 1:
        return pixels
    for count in range(pixels, 1, -1):
        line = line_of(isa, spec, count, vectors)
        needed = line.registers(steps) if product(taps) == 1 else line.body(steps)
        if needed <= isa.registers:
            return count
    return 1


def line_of(isa: DotProduct, spec: LinearSpec, pixels: int, vectors: int) -> Line:
    """That of a tile of a convolution or product."""
    return Line(isa, pixels, vectors, spec.axes[2].stride * spec.groups * spec.inner, spec.run)


@dataclass(frozen=True)
class Line:
    """A tile of `pixels` x `vectors` sums, whose pixels stand `apart` elements from each other.

    run : elements of a tap, which its steps read one after the other.
    """

    isa: DotProduct
    pixels: int
    vectors: int
    apart: int
    run: int

    @property
    def unroll(self) -> int:
        """Steps in one turn of the loop over them: as many as the descriptor wants, if they fit."""
        fitting = (n for n in range(self.isa.unroll, 1, -1) if self.body(n) <= self.isa.registers)
        return next(fitting, 1)

    @contextmanager
    def loop(self, count: int, steps: int) -> Iterator[PrimExpr]:
        """A loop of `count` turns; written out with all that stands in it and around it, it is `steps` steps.

        Where LLVM would write it out, and the line does not fit, LLVM does not get to know its count.
        """
        long = steps * self.pixels * self.vectors > _WRITTEN_OUT
        if count == 1 or ((long or self.registers(steps) <= self.isa.registers) and not self.isa.one_turn):
            with loops((count,)) as (i,):
                yield i
            return
        with _uncounted(0, tvm.tirx.max(ex.unknown(count), 1)) as i:
            yield i

    @contextmanager
    def turns(self, low: PrimExpr, high: PrimExpr) -> Iterator[PrimExpr]:
        """A loop from `low` to `high`, too long to be written out."""
        with _uncounted(low, high) if self.isa.one_turn else tb.serial(low, high) as i:
            yield i

    def registers(self, steps: int) -> int:
        """What `steps` steps written out need, with an epilogue behind them."""
        sums = self.pixels * self.vectors
        products = sums if self.isa.adds_apart and steps > 1 else 0
        return max(self.body(steps), sums + products + self.isa.epilogue)

    def body(self, steps: int) -> int:
        """The same without an epilogue."""
        sums = self.pixels * self.vectors
        products = sums if self.isa.adds_apart and steps > self.isa.unroll else 0
        # See `DotBody._step`: either the weights of a step are held, or the activations of one.
        held = self.pixels + 1 if self.isa.keeps_activations else self.vectors + 1
        return sums + held + self._kept(steps) + products

    def _kept(self, steps: int) -> int:
        """Loads of activations that are wanted again, for the next pixels: the most at one time."""
        starts = load_starts(self.isa, self.run)[: -(-steps // self.isa.steps)]
        loads = [[p * self.apart + start for p in range(self.pixels)] for start in starts]
        last = {element: i for i, row in enumerate(loads) for element in row}
        first = {element: i for i, row in reversed([*enumerate(loads)]) for element in row}
        return max(sum(first[e] <= i < last[e] for e in last) for i in range(len(loads)))


@contextmanager
def _uncounted(low: PrimExpr, high: PrimExpr) -> Iterator[PrimExpr]:
    """A loop whose step LLVM does not know, so that it cannot count the turns and do several at once."""
    turn = registers(1, "int32")
    tb.buffer_store(turn, ex.cast(low, "int32") if not isinstance(low, int) else ex.int32(low), [0])
    with tb.While(turn[0] < high):
        yield turn[0]
        tb.buffer_store(turn, turn[0] + ex.unknown(1), [0])
