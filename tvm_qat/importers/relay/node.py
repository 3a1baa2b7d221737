"""One call of an operator as a converter sees it, and the values that flow between calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.binary import Array
from tvm_qat.importers.relay.syntax import Meta
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import (
    Expr,
    TensorType,
    Tuple,
    TupleGetItem,
    TupleType,
    Var,
    array_of,
    const,
    dtype_of,
    is_const,
    relax,
    shape_of,
)
from tvm_qat.qparams import STORAGE_RANGE, QParams

Value: TypeAlias = Any
"""A Relax expression, a tuple of values, or a function of the program (`graph.Closure`)."""

MOST_ELEMENTS = 1 << 32
LARGEST = 1 << 31


@dataclass
class Context:
    """What converters share.

    write : binds expressions. narrow : by an int32 variable, the 8- or 16-bit one that it is a cast
        of: Relay pools in int32 between two casts.
    """

    write: Writer
    narrow: dict[Var, Expr] = field(default_factory=dict)


@dataclass(frozen=True)
class Node:
    """args : translated operands. attrs : as written; what is left out has Relay's default."""

    op: str
    args: tuple[Value, ...]
    attrs: dict[str, Any]

    def tensor(self, index: int) -> Expr:
        value = self.args[index] if index < len(self.args) else None
        if value is None:
            raise InputError(f"operand {index} is missing")
        if isinstance(value, tuple) or not isinstance(getattr(value, "ty", None), TensorType):
            raise InputError(f"operand {index} is not a tensor")
        return value

    def tensors(self, index: int) -> tuple[Expr, ...]:
        """A tuple of tensors; an operand that is one tensor counts as a tuple of it."""
        value = self.args[index] if index < len(self.args) else ()
        parts = value if isinstance(value, tuple) else (value,)
        if not parts or not all(isinstance(getattr(part, "ty", None), TensorType) for part in parts):
            raise InputError(f"operand {index} is not a tuple of tensors")
        return parts

    def shape(self, index: int) -> tuple[Any, ...]:
        return shape_or_refuse(self.tensor(index))

    def dtype(self, index: int) -> str:
        return dtype_of(self.tensor(index))

    def is_float(self, index: int) -> bool:
        return self.dtype(index).startswith(("float", "bfloat"))

    def constant(self, index: int, what: str) -> Array:
        """The values of an operand that must be known at compile time."""
        value = self.tensor(index)
        if not is_const(value):
            raise UnsupportedError(f"its {what} is computed at run time")
        return array_of(value)

    def whole(self, name: str, default: int) -> int:
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= LARGEST:
            raise InputError(f"attribute {name} is not a whole number of 32 bits")
        return value

    def flag(self, name: str, default: bool) -> bool:
        return (
            bool(self.whole(name, int(default)))
            if self.attrs.get(name) not in (True, False)
            else bool(self.attrs[name])
        )

    def real(self, name: str, default: float) -> float:
        value = self._given(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"attribute {name} is not a number")
        return float(np.float32(value)) if abs(value) < math.inf else float(value)

    def text(self, name: str, default: str) -> str:
        value = self._given(name, default)
        if not isinstance(value, str):
            raise InputError(f"attribute {name} is not a string")
        return value

    def wholes(self, name: str, default: Sequence[int] | None) -> list[int]:
        """A list of whole numbers; a single one counts as a list of it."""
        value = self._given(name, default)
        if value is None:
            raise InputError(f"attribute {name} is missing")
        values = list(value) if isinstance(value, list | tuple) else [value]
        if not all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < LARGEST for v in values):
            raise InputError(f"attribute {name} is not a list of whole numbers")
        return values

    def axis(self, name: str, default: int, rank: int) -> int:
        """An attribute that names an axis, as a non-negative number below `rank`."""
        return axis_in(self.whole(name, default), rank)

    def axes(self, name: str, rank: int) -> list[int]:
        """The axes of a reduction; all of them where the attribute is left out."""
        given = self.attrs.get(name)
        found = list(range(rank)) if given is None else [axis_in(a, rank) for a in self.wholes(name, None)]
        if len(set(found)) != len(found):
            raise InputError(f"attribute {name} names an axis twice")
        return found

    def _given(self, name: str, default: Any) -> Any:
        value = self.attrs.get(name)
        if isinstance(value, Meta):
            raise UnsupportedError(f"attribute {name} lies in the metadata")
        return default if value is None else value

    def grid(self, scale: int, zero_point: int, dtype: str, axis: int | None = None) -> QParams:
        """Quantization parameters from two operands, known at compile time.

        axis : where they lie if they are vectors; None if the operator takes only scalars.
        """
        if dtype not in STORAGE_RANGE:
            raise UnsupportedError(f"quantized values of type {dtype} are not supported")
        scales = self.constant(scale, "scale")
        return QParams(scales, self.constant(zero_point, "zero point"), dtype, axis)


Converter: TypeAlias = Callable[[Context, Node], Value]


def axis_in(axis: int, rank: int) -> int:
    if not -rank <= axis < rank:
        raise InputError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def shape_or_refuse(value: Expr) -> tuple[Any, ...]:
    shape = shape_of(value)
    if shape is None:
        raise UnsupportedError("an operand has a shape that is computed at run time")
    return shape


def bound(context: Context, value: Value) -> Value:
    """`value` with every expression bound to a variable and checked; tuples become Python's."""
    if isinstance(value, tuple | list):
        return tuple(bound(context, part) for part in value)
    if isinstance(value, Tuple):
        return tuple(bound(context, part) for part in value.fields)
    var = context.write(value)
    if isinstance(var.ty, TupleType):
        return tuple(bound(context, TupleGetItem(var, i)) for i in range(len(var.ty.fields)))
    _check_size(var)
    return var


def _check_size(value: Expr) -> None:
    shape = shape_or_refuse(value)
    sizes = [size for size in shape if isinstance(size, int)]
    if not is_const(value) and (min(sizes, default=1) < 1 or math.prod(sizes) > MOST_ELEMENTS):
        raise InputError(f"its result would have the shape {list(shape)}")


def spread(context: Context, vector: Expr, axis: int, rank: int) -> Expr:
    """A vector shaped to lie along `axis` of a tensor of `rank`."""
    shape = [1] * rank
    shape[axis] = -1
    return reshaped(context, vector, shape)


def reshaped(context: Context, value: Expr, shape: Sequence[Any]) -> Expr:
    """`value` in another shape; a constant at once."""
    if is_const(value):
        return const(array_of(value).reshape([int(size) for size in shape]))
    return context.write(relax.op.reshape(value, list(shape)))


def transposed(context: Context, value: Expr, axes: Sequence[int]) -> Expr:
    """`value` with its axes in another order; a constant at once."""
    if is_const(value):
        return const(np.ascontiguousarray(array_of(value).transpose(axes)))
    return (
        value
        if list(axes) == list(range(len(axes)))
        else context.write(relax.op.permute_dims(value, list(axes)))
    )
