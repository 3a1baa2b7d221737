"""Sizes of code for a GPU: counted in 32 bits, some of them known only when a kernel runs.

    n0 = int32(s0)                          of each unknown size of an argument
    assert s0 * 64 <= 2^31 - 1              elements of each argument
    if s0 * 64 > 0: launch                  a GPU refuses to launch nothing

Where all sizes are known, they have been looked at before (`threads.require_countable`), and none of
this is in the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tvm_ffi

from tvm_qat.ir import Shape, tvm
from tvm_qat.kernels.builder import Body, Symbols, tb
from tvm_qat.kernels.loops import product

_tir = tvm.tirx

MOST = 2**31 - 1
"""Elements of a tensor."""

TOO_MANY = "kernels for a GPU count elements in 32 bits, and a tensor has more of them"


class GpuSymbols(Symbols):
    """int32 variables, each made from the int64 one of the arguments' shapes."""

    def __init__(self) -> None:
        super().__init__()
        self._sizes: list[tuple[Any, Any, Any]] = []

    def dim(self, size: Any) -> Any:
        return size if isinstance(size, int) else self._variables(size)[1]

    def given(self, shape: Sequence[Any]) -> Shape:
        return tuple(size if isinstance(size, int) else self._variables(size)[0] for size in shape)

    @property
    def memory(self) -> str:
        """That of each thread."""
        return "local"

    def emit(self, body: Body, buffers: dict[str, Any], output: Any) -> None:
        if not self._sizes:
            body(buffers, output)
            return
        every = [*buffers.values(), output]
        small = [product(b.shape) <= _tir.const(MOST, "int64") for b in every if _is_open(b)]
        with tb.Assert(_tir.all(*small), TOO_MANY, "ValueError"):
            pass
        for given, count, _ in self._sizes:
            tb.Bind(_tir.Cast("int32", given), var=count)
        counted = {name: self._counted(b) for name, b in buffers.items()}
        filled = self._counted(output)
        with tb.If(product(filled.shape) > 0), tb.Then():
            body(counted, filled)

    def _counted(self, buffer: Any) -> Any:
        """The same tensor, its places computed in 32 bits."""
        if not _is_open(buffer):
            return buffer
        twins = {given.name: count for given, count, _ in self._sizes}
        shape = [int(s) if isinstance(s, _tir.IntImm) else twins[s.name] for s in buffer.shape]
        return tb.decl_buffer(shape, str(buffer.dtype), data=buffer.data, layout=None)

    def _variables(self, size: Any) -> tuple[Any, Any]:
        for given, count, expr in self._sizes:
            if tvm_ffi.structural_equal(expr, size):
                return given, count
        number = len(self._sizes)
        made = _tir.Var(f"s{number}", "int64"), _tir.Var(f"n{number}", "int32")
        self._sizes.append((*made, size))
        return made


def _is_open(buffer: Any) -> bool:
    return not all(isinstance(size, _tir.IntImm) for size in buffer.shape)
