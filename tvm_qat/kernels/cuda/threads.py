"""Threads of a GPU: one for each element of something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import tb
from tvm_qat.kernels.cuda.symbols import MOST
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.loops import plain_shape, static_work

_tir = tvm.tirx

THREADS = 256
WARP = 32


def ceil_div(total: Any, most: int) -> Any:
    """How many groups of at most so many `total` makes; it is more than 0."""
    # not total + most - 1, which may be too large for an int32
    return -(-total // most) if isinstance(total, int) else _tir.truncdiv(total - 1, most) + 1


@contextmanager
def one_for_each(total: Any, threads: int = THREADS) -> Iterator[PrimExpr]:
    """`total` threads, each with its number."""
    with tb.launch_thread("blockIdx.x", ceil_div(total, threads)) as block:
        with tb.launch_thread("threadIdx.x", threads) as thread:
            number = tb.Bind(block * threads + thread)
            if isinstance(total, int) and total % threads == 0:
                yield number
            else:
                with tb.If(number < total), tb.Then():
                    yield number


def require_countable(fused: Fused, *shapes: Sequence[Any]) -> None:
    """Raise UnsupportedError where elements cannot be counted in int32; unknown sizes count as one."""
    most = max((static_work(plain_shape(shape)) for shape in shapes), default=0)
    if most > MOST:
        reason = f"{fused.op}: kernels for a GPU count elements in 32 bits, and here are {most}"
        raise UnsupportedError(located(reason, node=fused.source))
