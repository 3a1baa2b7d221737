"""PrimFuncs that call kernels, on tensors that lie at known addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import IRBuilder

from tvm_qat.ir import tvm
from tvm_qat.kernels.builder import buffer, tb

_tir: Any = tvm.tirx

WORKSPACE, CONSTANTS = -1, -2
"""Bases of places that are no arguments."""

_CPU = 1
"""DLPack's number."""


@dataclass(frozen=True)
class Place:
    """Where a tensor lies: `offset` bytes behind a base, which is an argument's number or a name above."""

    base: int
    offset: int
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Step:
    """A call of the kernel with this symbol."""

    kernel: str
    operands: tuple[Place, ...]


def run_func(name: str, arguments: Sequence[Place], workspace_size: int, steps: Sequence[Step]) -> Any:
    """`name(*arguments, workspace, constants, first, last)`, which does the steps from first to last - 1.

    workspace : uint8 tensor of `workspace_size` bytes. constants : address. first, last : int64.
    """
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True, is_private=True):
            tb.func_name(name)
            tensors = [tb.arg(f"p{i}", buffer(arg.shape, arg.dtype)) for i, arg in enumerate(arguments)]
            workspace = tb.arg("workspace", buffer((workspace_size,), "uint8"))
            constants = tb.arg("constants", _tir.Var("constants", "handle"))
            first, last = (tb.arg(end, _tir.Var(end, "int64")) for end in ("first", "last"))
            bases = {**{i: tensor.data for i, tensor in enumerate(tensors)}}
            bases |= {WORKSPACE: workspace.data, CONSTANTS: constants}
            for number, step in enumerate(steps):
                with tb.If(_tir.all(first <= number, number < last)):
                    with tb.Then():
                        operands = [_array(bases[place.base], place) for place in step.operands]
                        tb.evaluate(_tir.call_cpacked(step.kernel, *operands))
    return builder.get()


def bound_func(name: str, kernel: str, operands: Sequence[Place | None]) -> Any:
    """`name(constants, *others)`, which calls the kernel with its constants in place and the others as given.

    operands : of the kernel in order; None for the others, tensors whose shapes are not looked at.
    """
    with IRBuilder() as builder:
        with tb.prim_func(s_tir=True, is_private=True):
            tb.func_name(name)
            constants = tb.arg("constants", _tir.Var("constants", "handle"))
            given = []
            for i, place in enumerate(operands):
                if place is None:
                    given.append(tb.arg(f"p{i}", _tir.Var(f"p{i}", "handle")))
                else:
                    given.append(_array(constants, place))
            # without an argument of known shape TVM does not know by itself where the tensors are
            with tb.attr(constants, "device_type", _CPU), tb.attr(constants, "device_id", 0):
                tb.evaluate(_tir.call_cpacked(kernel, *given))
    return builder.get()


def _array(base: Any, place: Place) -> Any:
    """The descriptor that TVM's calling convention wants, made on the stack."""
    data = _tir.handle_add_byte_offset(base, _tir.IntImm("int64", place.offset))
    shape = _tir.tvm_stack_make_shape(*(_tir.IntImm("int64", size) for size in place.shape))
    zero, rank = _tir.IntImm("int32", 0), _tir.IntImm("int32", len(place.shape))
    return _tir.tvm_stack_make_array(data, shape, zero, rank, _tir.const(0, place.dtype), zero)
