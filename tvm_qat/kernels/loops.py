"""Loops that all generated kernels share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.expressions import PrimExpr

_tir = tvm.tirx

PARALLEL_WORK = 50_000
"""Steps of work (an element, or STEP_MACS multiply-accumulates) below which one thread does it all:
waking the others costs more."""

STEP_MACS = 8


def worth_threads(sizes: Sequence[Any], per_step: int = 1) -> bool:
    """Whether a loop nest of these sizes shall run in parallel; symbolic sizes count as one."""
    return static_work(sizes) // per_step > PARALLEL_WORK


@contextmanager
def loops(extents: Sequence[Any], parallel: bool = False) -> Iterator[tuple[PrimExpr, ...]]:
    """One loop over the product of `extents`, giving the coordinates; the last runs fastest."""
    total = product(extents)
    if isinstance(total, int) and total == 1:
        yield tuple(0 for _ in extents)
        return
    with (tb.parallel if parallel else tb.serial)(0, total) as i:
        yield decode(i, extents)


def plain(size: Any) -> Any:
    """A dimension as a Python integer where it is known."""
    return int(size) if isinstance(size, tvm.tirx.IntImm) else size


def plain_shape(buffer_or_shape: Any) -> list[Any]:
    return [plain(size) for size in getattr(buffer_or_shape, "shape", buffer_or_shape)]


def product(sizes: Sequence[Any]) -> Any:
    total: Any = 1
    for size in map(plain, sizes):
        total = size if isinstance(total, int) and total == 1 else total * size
    return total


def decode(i: PrimExpr, extents: Sequence[Any]) -> tuple[PrimExpr, ...]:
    """Coordinates of the linear position `i` in a row-major box."""
    coordinates: list[PrimExpr] = []
    rest, inner = i, plain_shape(extents)
    unsigned = any(_in_32_bits(extent) for extent in inner)
    div, mod = (_tir.truncdiv, _tir.truncmod) if unsigned else (_tir.floordiv, _tir.floormod)
    while inner:
        extent = inner.pop()
        if isinstance(extent, int) and extent == 1:
            coordinates.append(0)
        elif all(isinstance(e, int) and e == 1 for e in inner):
            coordinates.append(rest)
            rest = 0
        else:
            coordinates.append(mod(rest, extent))
            rest = div(rest, extent)
    return tuple(reversed(coordinates))


def _in_32_bits(extent: Any) -> bool:
    """Whether it is an unknown size of code for a GPU, which has better to do than to look at signs."""
    return not isinstance(extent, int) and str(extent.ty.dtype) == "int32"


def static_work(sizes: Sequence[Any]) -> int:
    """Product of the sizes that are known; symbolic ones count as one."""
    total = 1
    for size in map(plain, sizes):
        total *= size if isinstance(size, int) else 1
    return total


def tiles(extent: Any, most: int) -> list[tuple[int, Any, Any]]:
    """(size, count, start) of tiles that cover `extent`, none larger than `most`.

    A known extent is split evenly, so at most two sizes occur; the rest of a symbolic one is
    done one by one.
    """
    if not isinstance(extent, int):
        full = tvm.tirx.floordiv(extent, most)
        rest = plain(tvm.sym.Analyzer().simplify(tvm.tirx.floormod(extent, most)))
        groups = [(most, full, 0), (1, rest, full * most)]
        return groups if not isinstance(rest, int) or rest else groups[:1]
    count = max(1, -(-extent // most))
    size, larger = divmod(extent, count)
    groups = [(size + 1, larger, 0), (size, count - larger, larger * (size + 1))]
    return [group for group in groups if group[1]]
