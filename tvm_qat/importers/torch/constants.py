"""Tensors known at import, and what the program computes from nothing else: torch computes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.ir import Expr, const

MOST_ELEMENTS = 1 << 32
"""A tensor with more elements is taken for a damaged or hostile model."""

_DTYPES = {
    torch.float32: "float32", torch.float64: "float64", torch.float16: "float16",
    torch.bfloat16: "bfloat16", torch.int8: "int8", torch.uint8: "uint8", torch.int16: "int16",
    torch.uint16: "uint16", torch.int32: "int32", torch.uint32: "uint32", torch.int64: "int64",
    torch.uint64: "uint64", torch.bool: "bool",
}  # fmt: skip

CREATING = (
    "aten.arange", "aten.full", "aten.full_like", "aten.ones", "aten.ones_like", "aten.scalar_tensor",
    "aten.zeros", "aten.zeros_like",
)  # fmt: skip
"""Operators without a tensor among their operands, or that only ask for its shape."""


def dtype_name(dtype: torch.dtype) -> str:
    """`float32`, as NumPy and TVM call it."""
    if dtype not in _DTYPES:
        raise UnsupportedError(f"data type {dtype} is not supported")
    return _DTYPES[dtype]


class Constants:
    """Relax constants of tensors; a tensor that is used twice becomes one constant."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[torch.Tensor, Expr]] = {}

    def __call__(self, tensor: torch.Tensor) -> Expr:
        if id(tensor) not in self._made:
            self._made[id(tensor)] = (tensor, const(values_of(tensor)))
        return self._made[id(tensor)][1]


def values_of(tensor: torch.Tensor) -> Any:
    """The values as NumPy; bfloat16 as ml_dtypes' type of that name."""
    name = dtype_name(tensor.dtype)
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        raise UnsupportedError("tensors that are sparse, quantized or without data are not supported")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if name == "bfloat16":
        return plain.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return np.array(plain.numpy())


def is_known(value: object) -> bool:
    """Whether an operand holds nothing that is computed at run time."""
    if isinstance(value, list | tuple):
        return all(is_known(part) for part in value)
    plain = (int, float, str, torch.Tensor, torch.dtype, torch.device, torch.layout, torch.memory_format)
    return value is None or isinstance(value, plain)


def computed(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """What torch makes of known operands, which are left as they are even by in-place operators.

    Raises InputError if the operator does not accept them.
    """
    try:
        with torch.no_grad():
            made = function(*[_copied(a) for a in args], **{k: _copied(v) for k, v in kwargs.items()})
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"its operands do not fit: {str(error).splitlines()[0]}") from None
    return list(made) if isinstance(made, tuple) else made


def check_size(shape: Sequence[Any]) -> None:
    sizes = [size for size in shape if isinstance(size, int)]
    if math.prod(sizes) > MOST_ELEMENTS:
        raise InputError(f"its result would have the shape {sizes}")


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
