"""QuantizeLinear and DequantizeLinear, of ONNX (opset 10 and later) and of com.microsoft.

A blocked tensor is seen as a matrix with one block a row: a reshape, and a transpose where the
blocked axis is not the last, make it a per-channel one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import Grid, as_vector, dequantized, emit, grid_of, quantized, storage_of
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.tensors import MINIFLOATS, minifloat_table, type_name
from tvm_qat.ir import BlockBuilder, Expr, array_of, const, dtype_of, is_const, relax, shape_of, static_shape
from tvm_qat.qnn import build

FLOATS = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16"}


def quantize_linear(builder: BlockBuilder, node: Node) -> Expr:
    """y = saturate(round half even(x / scale) + zero_point)."""
    data = _float_data(builder, node)
    kind = _output_kind(node)
    storage_of(kind)
    if node.whole("block_size", 0):
        return _blocked(builder, node, data, kind, quantized)
    return quantized(data, _grid(builder, node, data, kind))


def dequantize_linear(builder: BlockBuilder, node: Node) -> Expr:
    """y = (x - zero_point) * scale, in the scale's float type."""
    data = node.require(0)
    kind = node.kind(0)
    out_dtype = _float_result(node)
    if kind in MINIFLOATS:
        return _from_minifloat(builder, node, data, out_dtype)
    if node.whole("block_size", 0):
        return _blocked(builder, node, data, kind, lambda rows, grid: dequantized(rows, grid, out_dtype))
    return dequantized(data, _grid(builder, node, data, kind), out_dtype)


def _float_data(builder: BlockBuilder, node: Node) -> Expr:
    data = node.require(0)
    if dtype_of(data) in FLOATS.values():
        return data
    if dtype_of(data) == "int32":
        return emit(builder, relax.op.astype(data, "float32"))
    raise InputError(f"input 0 is {dtype_of(data)}, not float")


def _output_kind(node: Node) -> str:
    """The zero point's type, else the attribute `output_dtype`, else UINT8."""
    declared = node.whole("output_dtype", 0)
    if node.optional(2) is None:
        return type_name(declared) if declared else "UINT8"
    kind = node.kind(2)
    if declared and type_name(declared) != kind:
        raise InputError(f"output_dtype is {type_name(declared)} but the zero point is {kind}")
    return kind


def _float_result(node: Node) -> str:
    """`output_dtype` (opset 23), else the type of the scale."""
    declared = node.whole("output_dtype", 0)
    name = type_name(declared) if declared else dtype_of(node.require(1))
    dtype = FLOATS.get(name, name)
    if dtype not in FLOATS.values():
        raise UnsupportedError(f"dequantizing to {name} is not supported")
    return dtype


def _grid(builder: BlockBuilder, node: Node, data: Expr, kind: str) -> Grid:
    """Per tensor for a scale of one element, else along the attribute `axis` (default 1)."""
    shape = shape_of(node.require(1))
    if shape is None or len(shape) > 1:
        raise InputError(f"the scale has shape {shape}, but no block_size is given")
    if shape in ((), (1,)):
        return grid_of(builder, node, 1, 2, kind)
    if node.opset < 13 and node.domain == "":
        raise InputError("per-channel parameters need opset 13 or later")
    data_shape = shape_of(data)
    if data_shape is None:
        raise UnsupportedError("per-channel parameters of a tensor of unknown rank are not supported")
    return grid_of(builder, node, 1, 2, kind, axis=node.axis(1, len(data_shape)), shape=data_shape)


def _from_minifloat(builder: BlockBuilder, node: Node, data: Expr, out_dtype: str) -> Expr:
    """No grid, but a table of 256 values: the value, less the zero point, times the scale."""
    if node.whole("block_size", 0) or shape_of(node.require(1)) not in ((), (1,)):
        raise UnsupportedError("per-channel and blocked quantization to small floats is not supported")
    table = minifloat_table(node.kind(0))
    scale = as_vector(builder, node.require(1), "float32", True)
    zero_point = node.constant(2)
    if is_const(data) and is_const(scale) and (node.optional(2) is None or zero_point is not None):
        zero = np.float32(0) if zero_point is None else table[zero_point.reshape(())]
        return const(((table[array_of(data)] - zero) * array_of(scale)).astype(out_dtype))
    value = emit(builder, build.lut(data, table))
    if node.optional(2) is not None:
        zero_bits = as_vector(builder, node.require(2), "uint8", True)
        value = emit(builder, relax.op.subtract(value, emit(builder, build.lut(zero_bits, table))))
    value = emit(builder, relax.op.multiply(value, scale))
    return value if out_dtype == "float32" else relax.op.astype(value, out_dtype)


def _blocked(builder: BlockBuilder, node: Node, data: Expr, kind: str, convert: Any) -> Expr:
    """One scale per `block_size` neighbours along `axis`; the axis must be whole blocks long."""
    shape, size = static_shape(data), node.whole("block_size", 0)
    if shape is None:
        raise UnsupportedError("blocked quantization of a tensor of unknown shape is not supported")
    axis = node.axis(1, len(shape))
    if size < 0 or shape[axis] % size:
        raise UnsupportedError(f"{shape[axis]} values on axis {axis} are not whole blocks of {size}")
    counts = (*shape[:axis], shape[axis] // size, *shape[axis + 1 :])
    rows = _rows_first(axis, len(shape))
    split = (*shape[:axis], shape[axis] // size, size, *shape[axis + 1 :])
    grid = _row_grid(builder, node, kind, counts)
    value = emit(builder, relax.op.reshape(data, split))
    value = emit(builder, relax.op.permute_dims(value, rows))
    value = emit(builder, relax.op.reshape(value, (-1, size)))
    value = emit(builder, convert(value, grid))
    value = emit(builder, relax.op.reshape(value, [split[i] for i in rows]))
    value = emit(builder, relax.op.permute_dims(value, np.argsort(rows).tolist()))
    return relax.op.reshape(value, shape)


def _rows_first(axis: int, rank: int) -> list[int]:
    """The axes of the split tensor with those inside a block last."""
    return [i for i in range(rank + 1) if i != axis + 1] + [axis + 1]


def _row_grid(builder: BlockBuilder, node: Node, kind: str, counts: tuple[int, ...]) -> Grid:
    """Scale and zero point, shaped like the blocks, as one vector with an entry a row."""
    vectors: list[Expr | None] = []
    for index in (1, 2):
        value = node.optional(index)
        if value is None:
            vectors.append(None)
            continue
        if shape_of(value) != counts:
            raise InputError(f"input {index} has shape {shape_of(value)} for blocks of shape {counts}")
        vectors.append(_flattened(builder, value))
    flat = replace(node, inputs=(node.inputs[0], *vectors))
    return grid_of(builder, flat, 1, 2, kind, axis=0)


def _flattened(builder: BlockBuilder, value: Expr) -> Expr:
    if is_const(value):
        return const(array_of(value).reshape(-1))
    return builder.emit(relax.op.reshape(value, (-1,)))
