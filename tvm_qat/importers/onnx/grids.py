"""Scale and zero point operands of a node, known at import or computed by the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.tensors import NARROW
from tvm_qat.ir import BlockBuilder, Expr, Var, array_of, const, dtype_of, is_const, relax, shape_of
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

INTEGERS = ("INT8", "UINT8", "INT16", "UINT16", "INT32", *NARROW)


@dataclass(frozen=True)
class RunTimeGrid:
    """Parameters that the graph computes: scale float32 and zero point int32, () or (n,)."""

    scale: Expr
    zero_point: Expr
    dtype: str
    axis: int | None
    qmin: int | None
    qmax: int | None


Grid: TypeAlias = QParams | RunTimeGrid


def grid_of(
    builder: BlockBuilder, node: Node, scale: int, zero_point: int, kind: str, *, axis: int | None = None,
    shape: tuple[object, ...] | None = None,
) -> Grid:  # fmt: skip
    """The grid from two inputs of `node`.

    kind : ONNX type of the quantized values (`INT4`), which the zero point must share.
    axis, shape : where per-channel parameters lie in the quantized tensor; None if the operator
        knows none but per-tensor ones.
    """
    _check_kind(node, zero_point, kind)
    s, z = node.require(scale), node.optional(zero_point)
    if z is not None and not _same_size(s, z):
        raise InputError(f"the scale has shape {shape_of(s)} but the zero point {shape_of(z)}")
    bounds = NARROW.get(kind, (None, None))
    dtype = storage_of(kind)
    if is_const(s) and (z is None or is_const(z)):
        params = QParams(array_of(s), np.int32(0) if z is None else array_of(z), dtype, axis, *bounds)
        return params if shape is None else params.check_axis(shape)
    shape_of_scale = shape_of(s)
    if shape_of_scale is None or len(shape_of_scale) > 1:
        raise UnsupportedError(f"a scale of shape {shape_of_scale} computed at run time is not supported")
    per_tensor = shape_of_scale in ((), (1,))
    if not per_tensor and axis is None:
        raise UnsupportedError("per-channel parameters are not supported here")
    zero = const(0, "int32") if z is None else as_vector(builder, z, "int32", per_tensor)
    real = as_vector(builder, s, "float32", per_tensor)
    return RunTimeGrid(real, zero, dtype, None if per_tensor else axis, *bounds)


def storage_of(kind: str) -> str:
    """`int8` for `INT4`; raises UnsupportedError for what is no quantized integer."""
    if kind not in INTEGERS:
        raise UnsupportedError(f"quantized values of type {kind or 'unknown'} are not supported")
    return "int8" if kind in ("INT4", "INT2") else "uint8" if kind in NARROW else kind.lower()


def _check_kind(node: Node, zero_point: int, kind: str) -> None:
    found = node.type_of(zero_point)
    if node.optional(zero_point) is not None and found and found != kind:
        raise InputError(f"the zero point is {found} but the quantized values are {kind}")


def _same_size(scale: Expr, zero_point: Expr) -> bool:
    a, b = shape_of(scale), shape_of(zero_point)
    return a is None or b is None or a == b or {a, b} == {(), (1,)}


def as_vector(builder: BlockBuilder, expr: Expr, dtype: str, scalar: bool) -> Expr:
    """A parameter in another dtype, of shape () if `scalar`."""
    if is_const(expr):
        values = array_of(expr).astype(dtype)
        return const(values.reshape(()) if scalar else values)
    if dtype_of(expr) != dtype:
        expr = builder.emit(relax.op.astype(expr, dtype))
    return builder.emit(relax.op.reshape(expr, [])) if scalar and shape_of(expr) else expr


def dequantized(data: Expr, grid: Grid, out_dtype: str = "float32") -> Expr:
    if isinstance(grid, QParams):
        return build.dequantize(data, grid, out_dtype)
    return build.dequantize_at_run_time(data, grid.scale, grid.zero_point, grid.axis, out_dtype)


def quantized(data: Expr, grid: Grid) -> Expr:
    if isinstance(grid, QParams):
        return build.quantize(data, grid)
    low, high = bounds_of(grid)
    return build.quantize_at_run_time(data, grid.scale, grid.zero_point, grid.dtype, low, high, grid.axis)


def bounds_of(grid: RunTimeGrid) -> tuple[int, int]:
    info = np.iinfo(grid.dtype)
    low = int(info.min) if grid.qmin is None else grid.qmin
    return low, int(info.max) if grid.qmax is None else grid.qmax


def emit(builder: BlockBuilder, expr: Expr) -> Expr:
    """Bound to a variable, unless it is one already."""
    return expr if is_const(expr) or isinstance(expr, Var) else builder.emit(expr)
