"""One node as a converter sees it: operands translated, attributes by kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tensorflow.model import Array, dtype
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, const, dtype_of, shape_of


@dataclass(frozen=True)
class Handle:
    """A variable, before it is read. node : the node of the model's graph that holds it."""

    node: str


Value: TypeAlias = Any
"""An array (known at import; of dtype object where it holds symbolic sizes), an expression, a
Handle, or what SpaceToBatchND leaves for the convolution after it."""


@dataclass(frozen=True)
class Node:
    """attrs : AttrValue messages. write : binds an expression under this node's name."""

    name: str
    op: str
    inputs: tuple[Value, ...]
    attrs: Mapping[str, Any]
    write: Writer

    def value(self, index: int) -> Value:
        if index >= len(self.inputs):
            raise InputError(f"it has {len(self.inputs)} inputs, and needs input {index}")
        return self.inputs[index]

    def tensor(self, index: int) -> Expr:
        """An operand as an expression; constants become Relax constants."""
        return as_tensor(self.value(index))

    def tensors(self, count: int | None = None) -> list[Expr]:
        values = self.inputs if count is None else self.inputs[:count]
        return [as_tensor(value) for value in values]

    def constant(self, index: int, what: str) -> Array:
        """An operand that must be known at import; may hold symbolic sizes."""
        value = self.value(index)
        if not isinstance(value, np.ndarray):
            raise UnsupportedError(f"{what} computed at run time is not supported")
        return value

    def numbers(self, index: int, what: str) -> list[int]:
        """A constant operand of integers, without symbolic sizes."""
        values = self.constant(index, what)
        if not np.issubdtype(values.dtype, np.integer):
            raise UnsupportedError(f"{what} must be known integers")
        return [int(value) for value in values.reshape(-1)]

    def shape(self, index: int) -> tuple[Any, ...]:
        value = self.value(index)
        if isinstance(value, np.ndarray):
            return tuple(value.shape)
        shape = shape_of(as_tensor(value))
        if shape is None:
            raise UnsupportedError("an operand of unknown rank is not supported")
        return shape

    def sizes(self, index: int, axes: list[int]) -> list[int]:
        """Sizes of an operand that must be known."""
        sizes = [self.shape(index)[axis] for axis in axes]
        if not all(isinstance(size, int) for size in sizes):
            raise UnsupportedError("it needs fixed sizes; give input_shapes")
        return sizes

    def axis(self, axis: int, rank: int) -> int:
        if not -rank <= axis < rank:
            raise InputError(f"axis {axis} is out of range for rank {rank}")
        return axis % rank

    def dtype(self, index: int) -> str:
        value = self.value(index)
        return str(value.dtype) if isinstance(value, np.ndarray) else dtype_of(as_tensor(value))

    def whole(self, name: str, default: int) -> int:
        return int(self.attrs[name].i) if name in self.attrs else default

    def real(self, name: str, default: float) -> float:
        return float(self.attrs[name].f) if name in self.attrs else default

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.attrs[name].b) if name in self.attrs else default

    def text(self, name: str, default: str) -> str:
        return self.attrs[name].s.decode("utf-8", "replace") if name in self.attrs else default

    def wholes(self, name: str, default: list[int]) -> list[int]:
        found = [int(value) for value in self.attrs[name].list.i] if name in self.attrs else []
        return found or default

    def type(self, name: str) -> str:
        if name not in self.attrs:
            raise InputError(f"its attribute {name!r} is missing")
        return dtype(self.attrs[name].type)


def as_tensor(value: Value) -> Expr:
    if isinstance(value, Handle):
        raise UnsupportedError(f"variable {value.node!r} is used other than by reading it")
    if not isinstance(value, np.ndarray):
        if not hasattr(value, "ty"):
            raise UnsupportedError("SpaceToBatchND is only supported around a convolution")
        return value
    if value.dtype == object:
        raise UnsupportedError("a size that is only known at run time is used as data")
    return const(value)
