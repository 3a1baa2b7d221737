"""PrimFuncs and their buffers. The only place in kernels that knows TVM's TIR builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm_ffi
from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script.builder import ir as _builder

from tvm_qat.ir import Expr, Shape, tvm
from tvm_qat.kernels.operands import Operand

tb: Any = _builder
"""Statements: loops, stores, conditions."""

Body: TypeAlias = Callable[[dict[str, Any], Any], None]
"""(buffers by operand name, output) -> nothing: the statements that fill the output."""

_MEMORY: ContextVar[str] = ContextVar("memory", default="global")
"""See `Symbols.memory`."""


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

    def given(self, shape: Sequence[Any]) -> Shape:
        """Of an argument."""
        return self.shape(shape)

    def emit(self, body: Body, buffers: dict[str, Any], output: Any) -> None:
        """The statements of the PrimFunc."""
        body(buffers, output)

    @property
    def memory(self) -> str:
        """TVM's scope of what a kernel allocates."""
        return "global"


def buffer(shape: Sequence[Any], dtype: str) -> Any:
    return tb.buffer(tuple(shape), dtype, layout=None)


def workspace(shape: Sequence[Any], dtype: str) -> Any:
    return tb.alloc_buffer(tuple(shape), dtype, scope=_MEMORY.get(), layout=None)


def registers(count: int, dtype: str) -> Any:
    """A buffer that LLVM keeps in registers: in global scope TVM puts up to 1 KB on the stack."""
    return tb.alloc_buffer((count,), dtype, scope=_MEMORY.get(), layout=None)


def between_launches(shape: Sequence[Any], dtype: str, name: str) -> Any:
    """Memory of the device that one launch of a PrimFunc fills for the next: TVM's workspace."""
    return IRBuilder.name(name, tb.alloc_buffer(tuple(shape), dtype, scope="global", layout=None))


def view(of: Any, shape: Sequence[Any]) -> Any:
    """The same memory under another shape."""
    return tb.decl_buffer(tuple(shape), str(of.dtype), data=of.data, layout=None)


def _root(operands: int) -> Any:
    """A block around functions of one operand: TVM looks into these for reshapes and insists on it."""
    return tb.sblock("root") if operands == 1 else nullcontext()


def prim_func(
    name: str, symbols: Symbols, operands: Sequence[Operand], out_shape: Shape, out_dtype: str, body: Body
) -> Kernel:
    """A PrimFunc with one argument per operand and the output last; `body(buffers, output)` fills it.

    It is opaque to TVM's fusion: its loops are already what they shall be.
    """
    outside = _MEMORY.set(symbols.memory)
    try:
        return _prim_func(name, symbols, operands, out_shape, out_dtype, body)
    finally:
        _MEMORY.reset(outside)


def _prim_func(
    name: str, symbols: Symbols, operands: Sequence[Operand], out_shape: Shape, out_dtype: str, body: Body
) -> Kernel:
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True, is_private=True):
            tb.func_name(name)
            tb.func_attr({"tirx.noalias": True, "op_pattern": 8, "tirx.is_scheduled": True})
            buffers = {o.name: tb.arg(o.name, buffer(symbols.given(o.shape), o.dtype)) for o in operands}
            output = tb.arg("output", buffer(symbols.given(out_shape), out_dtype))
            with _root(len(buffers)):
                symbols.emit(body, buffers, output)
    return Kernel(builder.get(), [o.value for o in operands])
