"""Common types of operands, by torch's rules of promotion.

A dimension-less tensor or a number only counts where its kind (bool < integer < float) is higher
than that of the tensors with dimensions.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.torch.node import is_tensor
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import Expr, array_of, const, dtype_of, is_const, relax, shape_of

_KINDS = ("bool", "int", "float")


def cast(write: Writer, value: Expr, dtype: str) -> Expr:
    """`value` as `dtype`."""
    if dtype_of(value) == dtype:
        return value
    return const(array_of(value).astype(dtype)) if is_const(value) else write(relax.op.astype(value, dtype))


def unified(write: Writer, *values: Any) -> list[Expr]:
    """Tensors and numbers as tensors of their common dtype; at least one is a tensor."""
    dtype = common_dtype(*values)
    return [cast(write, v, dtype) if is_tensor(v) else _number(v, dtype) for v in values]


def common_dtype(*values: Any) -> str:
    """The dtype of the result of arithmetic on tensors and numbers."""
    tensors = [v for v in values if is_tensor(v)]
    with_dims = [dtype_of(v) for v in tensors if shape_of(v) != ()]
    scalars = [dtype_of(v) for v in tensors if shape_of(v) == ()]
    numbers = [_number_dtype(v) for v in values if not is_tensor(v)]
    found = _widest(with_dims)
    for group in (scalars, numbers):
        other = _widest(group)
        if other and (not found or _rank(other) > _rank(found)):
            found = other
    return found


def is_float(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def _number(value: Any, dtype: str) -> Expr:
    if not isinstance(value, bool | int | float):
        raise UnsupportedError(f"operand {value} is not known before run time")
    return const(np.asarray(value).astype(dtype))


def _number_dtype(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    return "float32" if isinstance(value, float) else "int64"


def _rank(dtype: str) -> int:
    return _KINDS.index("bool" if dtype == "bool" else "float" if is_float(dtype) else "int")


def _widest(dtypes: list[str]) -> str:
    if not dtypes:
        return ""
    if len(set(dtypes)) == 1:
        return dtypes[0]
    if {"float16", "bfloat16"} <= set(dtypes):
        return "float32"
    highest = max(map(_rank, dtypes))
    most = [dtype for dtype in dtypes if _rank(dtype) == highest]
    if highest == _KINDS.index("int"):
        return str(np.result_type(*most))
    return max(most, key=lambda dtype: np.dtype(dtype).itemsize if dtype != "bfloat16" else 2)
