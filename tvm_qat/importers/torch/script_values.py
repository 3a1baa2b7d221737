"""What a TorchScript graph computes from things that are known at import: sizes, flags, buffers.

Numbers and lists are computed by Python; small arithmetic on the model's own tensors by torch, from
a list of operators that do nothing but compute. Quantization is never in it: what it says must stay.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from tvm_qat.errors import UnsupportedError
from tvm_qat.ir import Expr, dtype_of, relax, static_shape

_MOST_ELEMENTS = 1 << 28


class Unknown:
    """A value of a graph that is looked through without inputs."""


UNKNOWN = Unknown()


def _append(values: list[Any], value: Any) -> list[Any]:
    values.append(value)
    return values


def _insert(values: list[Any], index: int, value: Any) -> None:
    values.insert(index, value)


def _set_item(values: Any, index: Any, value: Any) -> Any:
    values[index] = value
    return values


def _slice(values: Any, start: int | None = None, end: int | None = None, step: int = 1) -> Any:
    return values[slice(start, end, step)]


PYTHON: dict[str, Callable[..., Any]] = {
    "aten.add": lambda x, y, *_: x + y,
    "aten.sub": lambda x, y, *_: x - y,
    "aten.mul": operator.mul,
    "aten.div": operator.truediv,
    "aten.floordiv": operator.floordiv,
    "aten.floor_divide": operator.floordiv,
    "aten.remainder": operator.mod,
    "aten.neg": operator.neg,
    "aten.eq": operator.eq,
    "aten.ne": operator.ne,
    "aten.lt": operator.lt,
    "aten.le": operator.le,
    "aten.gt": operator.gt,
    "aten.ge": operator.ge,
    "aten.__and__": operator.and_,
    "aten.__or__": operator.or_,
    "aten.__not__": operator.not_,
    "aten.__is__": operator.is_,
    "aten.__isnot__": operator.is_not,
    "aten.__contains__": operator.contains,
    "aten.__getitem__": operator.getitem,
    "aten._set_item": _set_item,
    "aten.append": _append,
    "aten.extend": lambda values, more: values.extend(more),
    "aten.insert": _insert,
    "aten.pop": lambda values, *index: values.pop(*index),
    "aten.copy": lambda values: values.copy(),
    "aten.list": list,
    "aten.len": len,
    "aten.keys": lambda values: list(values),
    "aten.values": lambda values: list(values.values()),
    "aten.items": lambda values: list(values.items()),
    "aten.slice": _slice,
    "aten.Int": int,
    "aten.Float": float,
    "aten.Bool": bool,
    "aten.ScalarImplicit": lambda value: value,
    "aten.IntImplicit": int,
    "aten.FloatImplicit": float,
    "aten.format": lambda text, *values: text.format(*values),
    "aten.warn": lambda *_: None,
    "aten.__derive_index": lambda index, start, step: start + index * step,
    "aten.__range_length": lambda low, high, step: len(range(low, high, step)),
    "prim.min": min,
    "prim.max": max,
    "prim.NumToTensor": lambda value: value,
    "prim.unchecked_cast": lambda value: value,
    "prim.TupleIndex": operator.getitem,
}
"""Operators of numbers, strings and lists."""

_TORCH = frozenset(
    f"aten.{name}" for name in (
        "abs", "add", "all", "any", "broadcast_tensors", "cat", "clamp", "clone", "contiguous", "detach",
        "div", "eq", "exp", "flatten", "floor", "ge", "gt", "item", "le", "log", "lt", "maximum",
        "minimum", "mul", "ne", "neg", "numel", "ones_like", "permute", "pow", "reciprocal", "reshape",
        "round", "rsqrt", "select", "slice", "sqrt", "squeeze", "stack", "sub", "t", "tensor", "to",
        "transpose", "unsqueeze", "view", "view_as", "zeros_like", "zeros", "ones", "full", "arange",
        "alias", "type_as", "logical_and", "logical_or", "logical_not", "dequantize",
    )
)  # fmt: skip
"""Operators on tensors that are computed when all operands are known. A result is no larger than what
its operands hold or say; the random, the quantizing and those that read or write anything are not here."""


_TO_NUMBER = (
    "aten.Int", "aten.Float", "aten.Bool", "aten.ScalarImplicit", "aten.IntImplicit", "aten.FloatImplicit",
)  # fmt: skip


def is_known(value: Any) -> bool:
    """Whether nothing in it depends on the model's inputs."""
    if isinstance(value, list | tuple):
        return all(is_known(part) for part in value)
    if isinstance(value, dict):
        return all(is_known(part) for part in value.values())
    return not (value is UNKNOWN or isinstance(value, relax.Expr) or hasattr(value, "real_expr"))


def can_compute(op: str) -> bool:
    return op in PYTHON or op in _TORCH or op in QUERIES


def computed(op: str, schema: str, operands: Sequence[Any]) -> tuple[Any] | None:
    """The result of an operator whose operands are known, in a tuple; None if it is not computed here."""
    import torch

    if _holds_tensor(operands, torch.Tensor):
        if op in _TO_NUMBER:
            return (PYTHON[op](operands[0].item()),)
        if op == "aten.len":
            return (len(operands[0]),)
        if op in ("aten.size", "aten.dim"):
            return (_torch_query(op, operands),)
        by_value = op in ("aten.append", "aten.extend", "aten.__getitem__", "aten.__is__", "aten.__isnot__")
        if by_value or op in ("prim.unchecked_cast", "aten.len", "prim.NumToTensor"):
            return (PYTHON[op](*operands),)
    elif op in PYTHON:
        return (PYTHON[op](*operands),)
    if op not in _TORCH:
        return None
    name = torch._C.parse_schema(schema)
    packet = getattr(torch.ops.aten, op.removeprefix("aten."))
    sizes = operands[0] if op in ("aten.zeros", "aten.ones", "aten.full") else ()
    if _count(sizes) > _MOST_ELEMENTS:
        raise UnsupportedError(f"a constant of shape {list(sizes)} is too large")
    if op == "aten.tensor":
        return (torch.tensor(operands[0], dtype=None if operands[1] is None else scalar_type(operands[1])),)
    return (_called(getattr(packet, name.overload_name or "default"), name, operands),)


def _called(function: Any, schema: Any, operands: Sequence[Any]) -> Any:
    """Arguments after the `*` of a schema go by name; a dtype is an int in TorchScript."""
    positional, named = [], {}
    for argument, value in zip(schema.arguments, operands, strict=True):
        if argument.name == "dtype" and isinstance(value, int):
            value = scalar_type(value)
        if argument.kwarg_only:
            named[argument.name] = None if argument.name in ("layout", "pin_memory") else value
        else:
            positional.append(value)
    return function(*positional, **named)


def _holds_tensor(value: Any, tensor: type) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds_tensor(part, tensor) for part in value)
    return isinstance(value, tensor)


def _torch_query(op: str, operands: Sequence[Any]) -> Any:
    shape = list(operands[0].shape)
    if op == "aten.dim":
        return len(shape)
    return shape if len(operands) == 1 else shape[operands[1]]


def _count(sizes: Any) -> int:
    count = 1
    for size in sizes if isinstance(sizes, list | tuple) else (sizes,):
        count *= int(size)
    return count


SCALAR_TYPES = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64",
    11: "bool", 12: "qint8", 13: "quint8", 14: "qint32", 15: "bfloat16",
}  # fmt: skip
"""c10::ScalarType: TorchScript passes dtypes as these numbers (c10/core/ScalarType.h)."""


def scalar_type(number: int) -> Any:
    import torch

    if number not in SCALAR_TYPES:
        raise UnsupportedError(f"the data type {number} is not supported")
    return getattr(torch, SCALAR_TYPES[number])


def _size(tensor: Expr, axis: int | None = None) -> Any:
    shape = static_shape(tensor)
    if shape is None:
        raise UnsupportedError("its size is not known before run time")
    return list(shape) if axis is None else shape[axis]


def _dtype(tensor: Expr) -> int:
    numbers = {name: number for number, name in SCALAR_TYPES.items()}
    return numbers[dtype_of(tensor)]


def _count_of(tensor: Expr) -> int:
    return _count(_size(tensor))


QUERIES: dict[str, Callable[..., Any]] = {
    "aten.size": _size,
    "aten.dim": lambda tensor: len(_size(tensor)),
    "aten.len": lambda tensor: _size(tensor, 0),
    "aten.numel": _count_of,
    "aten.is_floating_point": lambda tensor: dtype_of(tensor).startswith("float"),
    "prim.dtype": _dtype,
    "prim.device": lambda _: "cpu",
    "prim.requires_grad": lambda _: False,
    "prim.layout": lambda _: None,
}
"""What is known of a tensor that is computed at run time."""


def is_expr(value: Any) -> bool:
    return isinstance(value, relax.Expr) and not isinstance(value, relax.ShapeExpr)
