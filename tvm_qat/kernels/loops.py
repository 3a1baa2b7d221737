"""Loops and buffers that all generated kernels share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Iterator

import tvm_ffi

from tvm_qat.ir import Expr, Shape, tvm
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.operands import Operand

from tvm.script.ir_builder import IRBuilder  # isort: skip
from tvm.tirx.script.builder import ir as tb  # isort: skip

PARALLEL_WORK = 20_000
"""Operations below which a kernel stays on one thread: starting the others costs more."""


@dataclass(frozen=True)
class Kernel:
    """A generated PrimFunc and what the graph passes to it."""

    func: Any
    args: list[Expr]


class Symbols:
    """Fresh variables for the symbolic dimensions of one PrimFunc; equal dimensions share one."""

    def __init__(self) -> None:
        self._known: list[tuple[Any, Any]] = []

    def dim(self, size: Any) -> Any:
        if isinstance(size, int):
            return size
        for expr, var in self._known:
            if tvm_ffi.structural_equal(expr, size):
                return var
        var = tvm.tirx.Var(f"s{len(self._known)}", "int64")
        self._known.append((size, var))
        return var

    def shape(self, shape: Sequence[Any]) -> Shape:
        return tuple(self.dim(size) for size in shape)


def buffer(shape: Sequence[Any], dtype: str) -> Any:
    return tb.buffer(tuple(shape), dtype, layout=None)


def workspace(shape: Sequence[Any], dtype: str) -> Any:
    return tb.alloc_buffer(tuple(shape), dtype, layout=None)


def registers(count: int, dtype: str) -> Any:
    return tb.alloc_buffer((count,), dtype, scope="local", layout=None)


def view(of: Any, shape: Sequence[Any]) -> Any:
    """The same memory under another shape."""
    return tb.decl_buffer(tuple(shape), str(of.dtype), data=of.data, layout=None)


def prim_func(
    name: str, symbols: Symbols, operands: Sequence[Operand], out_shape: Shape, out_dtype: str,
    body: Callable[[dict[str, Any], Any], None],
) -> Kernel:  # fmt: skip
    """A PrimFunc with one argument per operand and the output last; `body(buffers, output)` fills it.

    It is opaque to TVM's fusion: its loops are already what they shall be.
    """
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True, is_private=True):
            tb.func_name(name)
            tb.func_attr({"tirx.noalias": True, "op_pattern": 8, "tirx.is_scheduled": True})
            buffers = {o.name: tb.arg(o.name, buffer(symbols.shape(o.shape), o.dtype)) for o in operands}
            output = tb.arg("output", buffer(symbols.shape(out_shape), out_dtype))
            body(buffers, output)
    return Kernel(builder.get(), [o.value for o in operands])


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
    while inner:
        extent = inner.pop()
        if isinstance(extent, int) and extent == 1:
            coordinates.append(0)
        elif all(isinstance(e, int) and e == 1 for e in inner):
            coordinates.append(rest)
            rest = 0
        else:
            coordinates.append(tvm.tirx.floormod(rest, extent))
            rest = tvm.tirx.floordiv(rest, extent)
    return tuple(reversed(coordinates))


def static_work(sizes: Sequence[Any]) -> int:
    """Product of the sizes that are known; symbolic ones count as one."""
    total = 1
    for size in sizes:
        total *= size if isinstance(size, int) else 1
    return total


def tiles(extent: Any, most: int) -> list[tuple[int, Any, Any]]:
    """(size, count, start) of tiles that cover `extent`, none larger than `most`.

    A known extent is split evenly, so at most two sizes occur; the rest of a symbolic one is
    done one by one.
    """
    if not isinstance(extent, int):
        full = tvm.tirx.floordiv(extent, most)
        return [(most, full, 0), (1, tvm.tirx.floormod(extent, most), full * most)]
    count = max(1, -(-extent // most))
    size, larger = divmod(extent, count)
    groups = [(size + 1, larger, 0), (size, count - larger, larger * (size + 1))]
    return [group for group in groups if group[1]]
