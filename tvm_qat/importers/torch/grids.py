"""Scale, zero point and range of torch's operators as QParams."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.torch.node import Node, is_tensor
from tvm_qat.ir import array_of, is_const
from tvm_qat.qparams import STORAGE_RANGE, QParams

_UNSIGNED_FIRST = ("uint8", "int8", "uint16", "int16", "int32")


def grid_of(
    node: Node, *, scale: str = "scale", zero_point: str = "zero_point", axis: int | None = None,
    dtype: str | None = None, rounded: bool = False,
) -> QParams:  # fmt: skip
    """The grid from the arguments of these names.

    axis : of the tensor, for per-channel parameters. dtype : of the stored integers; by default
    the narrowest that holds quant_min to quant_max.
    rounded : the zero point is a learned float and is rounded as torch's learnable operators do.
    """
    qmin, qmax = node.whole("quant_min"), node.whole("quant_max")
    scales = known(node, scale)
    zero_points = known(node, zero_point) if node.has(zero_point) else np.zeros((), np.int64)
    if rounded:
        zero_points = _rounded(zero_points, qmin, qmax)
    zero_points = _whole(zero_points)
    storage = dtype or storage_of(qmin, qmax)
    if axis is not None:
        axis = node.axis("axis", len(node.shape("input" if "input" in node.args else "self")), axis)
    return QParams(scales, zero_points, storage, axis, qmin, qmax)


def known(node: Node, name: str) -> Any:
    """A parameter as an array; it may be a number, or a tensor that is known at import."""
    value = node.args.get(name)
    if isinstance(value, int | float):
        return np.asarray(value)
    if not is_tensor(value) or not is_const(value):
        raise UnsupportedError(f"{name} is computed at run time")
    return array_of(value)


def storage_of(qmin: int, qmax: int) -> str:
    """The narrowest dtype that holds the range, unsigned if it holds no negative value."""
    for name in _UNSIGNED_FIRST:
        low, high = STORAGE_RANGE[name]
        if low <= qmin < qmax <= high:
            return name
    raise InputError(f"range [{qmin}, {qmax}] does not fit 16 bits")


def _rounded(zero_points: Any, qmin: int, qmax: int) -> Any:
    """Half to even, then into the range: measured on torch 2.13, per tensor and per channel."""
    return np.clip(np.rint(np.asarray(zero_points, np.float32)), qmin, qmax).astype(np.int64)


def _whole(zero_points: Any) -> Any:
    """Float zero points that are whole numbers as integers; others lie on no grid."""
    values = np.asarray(zero_points)
    if np.issubdtype(values.dtype, np.integer):
        return values
    if not np.all(np.isfinite(values)) or np.any(values != np.rint(values)):
        raise UnsupportedError("zero points that are no whole numbers are not supported")
    return values.astype(np.int64)
