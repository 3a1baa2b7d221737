"""One call of an operator as a converter sees it, whether torch.export or TorchScript wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.ir import Expr, array_of, dtype_of, is_const, relax, shape_of, static_shape


@dataclass(frozen=True)
class Node:
    """A call with its operands translated.

    name : the source name that its bindings carry.
    op : namespace and operator without the overload, `aten.conv2d`; in-place operators by the name
        of their functional twin.
    args : by argument name of the operator's schema, defaults filled in. Tensors are expressions,
        sizes are ints or (symbolic) TVM expressions, dtypes are names ("float32"), lists are lists.
    """

    name: str
    op: str
    args: Mapping[str, Any]

    def has(self, name: str) -> bool:
        """Whether the argument exists in this overload and is not None."""
        return self.args.get(name) is not None

    def tensor(self, name: str) -> Expr:
        value = self.args.get(name)
        if not is_tensor(value):
            raise InputError(f"argument {name!r} is not a tensor")
        return value

    def optional(self, name: str) -> Expr | None:
        return self.tensor(name) if self.has(name) else None

    def tensors(self, name: str) -> list[Expr]:
        values = self.args.get(name)
        if not isinstance(values, list) or not values or not all(is_tensor(value) for value in values):
            raise InputError(f"argument {name!r} is not a list of tensors")
        return list(values)

    def constant(self, name: str) -> Any:
        """The values of a tensor that is known at import."""
        value = self.tensor(name)
        if not is_const(value):
            raise UnsupportedError(f"{name} is computed at run time")
        return array_of(value)

    def shape(self, name: str) -> tuple[Any, ...]:
        shape = shape_of(self.tensor(name))
        if shape is None:
            raise UnsupportedError(f"the rank of {name} is not known")
        return shape

    def fixed_shape(self, name: str) -> tuple[int, ...]:
        shape = static_shape(self.tensor(name))
        if shape is None:
            raise UnsupportedError(f"the shape of {name} is not known before run time")
        return shape

    def dtype(self, name: str) -> str:
        return dtype_of(self.tensor(name))

    def whole(self, name: str, default: int | None = None) -> int:
        value = self.args.get(name)
        value = default if value is None else value
        if not isinstance(value, int):
            raise UnsupportedError(f"argument {name!r} is {value}, not a fixed integer")
        return int(value)

    def real(self, name: str, default: float | None = None) -> float:
        value = self.args.get(name)
        value = default if value is None else value
        if not isinstance(value, int | float):
            raise UnsupportedError(f"argument {name!r} is {value}, not a fixed number")
        return float(value)

    def flag(self, name: str, default: bool = False) -> bool:
        return bool(self.whole(name, default))

    def wholes(self, name: str, count: int | None = None) -> list[int]:
        """A list of fixed integers; a single one stands for `count` of them."""
        value = self.args.get(name)
        values = [value] if isinstance(value, int) else value
        if not isinstance(values, list) or not all(isinstance(v, int) for v in values):
            raise UnsupportedError(f"argument {name!r} is {value}, not a list of fixed integers")
        if count is None or len(values) == count:
            return list(values)
        if len(values) != 1:
            raise InputError(f"argument {name!r} has {len(values)} entries for {count} dimensions")
        return values * count

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """An argument that counts dimensions, as a non-negative number below `rank`."""
        return axis_of(self.whole(name, default), rank)


def is_tensor(value: object) -> bool:
    return isinstance(value, relax.Expr) and not isinstance(value, relax.ShapeExpr)


def axis_of(axis: int, rank: int) -> int:
    size = max(rank, 1)
    if not -size <= axis < size:
        raise InputError(f"dimension {axis} is out of range for rank {rank}")
    return axis % size
