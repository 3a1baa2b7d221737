"""What a kernel reads besides literals: run-time tensors and parameters, as operands of call_tir.

Parameters are operands, not literals, so that layers of equal shape share one PrimFunc. Scalars
of one dtype travel together in one vector. An operand broadcasts against the kernel's output as
in NumPy: aligned at the last axis, dimensions of length 1 repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import Expr, Shape, const, dtype_of, shape_of
from tvm_qat.kernels.expressions import PrimExpr


@dataclass(frozen=True)
class Operand:
    """One argument of the PrimFunc. `value` is what the graph passes for it.

    indexed : read at positions of its own (a table, packed scalars), not at the output's.
    """

    name: str
    shape: Shape
    dtype: str
    value: Expr
    indexed: bool = False


@dataclass(frozen=True)
class Parameter:
    """A constant inside an operand: element `slot` of a vector of scalars, or the whole operand."""

    operand: str
    shape: tuple[int, ...]
    slot: int | None = None


class Operands:
    """Collects the operands of one kernel, in the order in which they are asked for."""

    accumulator_bound: int | None = None
    """Greatest absolute value of the kernel's int32 sums, where it is known."""

    def __init__(self) -> None:
        self._tensors: list[Operand] = []
        self._scalars: dict[str, list[Any]] = {}

    def tensor(self, value: Expr, indexed: bool = False) -> Operand:
        """A run-time tensor, or a constant that is used as it is. Asked twice, it is one operand."""
        for known in self._tensors:
            if known.value.same_as(value) and known.indexed == indexed:
                return known
        shape = shape_of(value)
        assert shape is not None, "kernels need tensors of known rank"
        operand = Operand(f"t{len(self._tensors)}", shape, dtype_of(value), value, indexed)
        self._tensors.append(operand)
        return operand

    def constant(self, values: npt.NDArray[Any]) -> Parameter:
        """Values that broadcast against the kernel's output."""
        if values.size == 1:
            slots = self._scalars.setdefault(str(values.dtype), [])
            slots.append(values.reshape(())[()])
            return Parameter(f"{values.dtype}_scalars", (), len(slots) - 1)
        while values.shape[0] == 1:
            values = values[0]
        return Parameter(self.tensor(const(values)).name, values.shape)

    def all(self) -> list[Operand]:
        """Every operand; the vectors of scalars come last."""
        packed = {f"{dtype}_scalars": np.asarray(values) for dtype, values in self._scalars.items()}
        return self._tensors + [Operand(n, v.shape, str(v.dtype), const(v), True) for n, v in packed.items()]


@dataclass(frozen=True)
class Site:
    """One element of the output, where expressions are built.

    buffers : by operand name, whatever can be indexed.
    index : of the element. anchor : the value of the kernel's main operator there.
    """

    buffers: Mapping[str, Any]
    index: tuple[PrimExpr, ...]
    anchor: PrimExpr | None = None

    def element(self, operand: Operand) -> PrimExpr:
        return self._read(operand.name)

    def parameter(self, parameter: Parameter) -> PrimExpr:
        if parameter.slot is not None:
            return self.buffers[parameter.operand][parameter.slot]
        return self._read(parameter.operand)

    def _read(self, name: str) -> PrimExpr:
        buffer = self.buffers[name]
        return buffer[broadcast_index(buffer.shape, self.index)]


def broadcast_index(shape: Sequence[Any], index: Sequence[PrimExpr]) -> tuple[PrimExpr, ...]:
    """The part of `index` that reads a tensor of `shape`, aligned at the last axis."""
    aligned = index[len(index) - len(shape) :]
    return tuple(0 if is_one(size) else i for size, i in zip(shape, aligned, strict=True))


def is_one(size: Any) -> bool:
    return bool(getattr(size, "value", size) == 1) if not hasattr(size, "name") else False
