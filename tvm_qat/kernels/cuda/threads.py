"""Threads of a GPU: one for each element of something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import plain_shape, product

THREADS = 256
WARP = 32
_MOST = 2**31 - 1


@contextmanager
def one_for_each(total: int, threads: int = THREADS) -> Iterator[PrimExpr]:
    """`total` threads, each with its number."""
    with tb.launch_thread("blockIdx.x", -(-total // threads)) as block:
        with tb.launch_thread("threadIdx.x", threads) as thread:
            number = tb.Bind(block * threads + thread)
            if total % threads == 0:
                yield number
            else:
                with tb.If(number < total), tb.Then():
                    yield number


def require_known(fused: Fused, *shapes: Sequence[Any]) -> None:
    """Raise UnsupportedError unless all sizes are known, and elements can be counted in int32."""
    sizes = [product(plain_shape(shape)) for shape in shapes]
    if not all(isinstance(size, int) for size in sizes):
        reason = f"{fused.op}: kernels for a GPU need every size known when they are compiled"
        remedy = "give the sizes with --input-shapes"
        raise UnsupportedError(located(reason, node=fused.source, remedy=remedy))
    if max(sizes, default=0) > _MOST:
        reason = f"{fused.op}: kernels for a GPU count elements in 32 bits, and here are {max(sizes)}"
        raise UnsupportedError(located(reason, node=fused.source))
