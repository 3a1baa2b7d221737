"""Quantization whose parameters the graph computes from the data."""

from __future__ import annotations

from tvm_qat.errors import InputError
from tvm_qat.importers.onnx.grids import as_vector, emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.qoperator import integer_matmul, zero_point
from tvm_qat.ir import BlockBuilder, Expr, const, dtype_of, relax, shape_of
from tvm_qat.qnn import build


def dynamic_quantize_linear(builder: BlockBuilder, node: Node) -> list[Expr]:
    """uint8 values, scale and zero point of the data's own range, widened to hold zero."""
    data = node.require(0)
    if dtype_of(data) != "float32":
        raise InputError(f"input 0 is {dtype_of(data)}, not float32")
    values, scale, zero = _quantized_by_range(builder, data)
    return [values, scale, emit(builder, relax.op.astype(zero, "uint8"))]


def dynamic_quantize_matmul(builder: BlockBuilder, node: Node) -> Expr:
    """com.microsoft: float A, quantized B, B's scale, B's zero point, bias."""
    values, scale, zero = _quantized_by_range(builder, node.require(0))
    b_zero = zero_point(builder, node.optional(3))
    total = emit(builder, integer_matmul(builder, values, node.require(1), zero, b_zero))
    return _scaled_with_bias(builder, total, scale, _scale(builder, node.require(2)), node.optional(4))


def matmul_integer_to_float(builder: BlockBuilder, node: Node) -> Expr:
    """com.microsoft: A, B, A's scale, B's scale, A's zero point, B's zero point, bias."""
    zeros = (zero_point(builder, node.optional(i)) for i in (4, 5))
    total = emit(builder, integer_matmul(builder, node.require(0), node.require(1), *zeros))
    a_scale, b_scale = (_scale(builder, node.require(i)) for i in (2, 3))
    out = _scaled_with_bias(builder, total, a_scale, b_scale, node.optional(6))
    dtype = node.dtype(2)
    return out if dtype == "float32" else relax.op.astype(emit(builder, out), dtype)


def _quantized_by_range(builder: BlockBuilder, data: Expr) -> tuple[Expr, Expr, Expr]:
    """(uint8 values, float32 scale (), int32 zero point ()).

    scale = (max - min) / 255 (1 where that is 0), zero point = round half even(-min / scale),
    clamped to 0..255. That rounding is what qnn.quantize does, so it computes the zero point too.
    """
    zero = const(0.0, "float32")
    least = emit(builder, relax.op.minimum(emit(builder, relax.op.min(data)), zero))
    most = emit(builder, relax.op.maximum(emit(builder, relax.op.max(data)), zero))
    span = emit(builder, relax.op.subtract(most, least))
    step = emit(builder, relax.op.divide(span, const(255.0, "float32")))
    flat = emit(builder, relax.op.equal(span, zero))
    scale = emit(builder, relax.op.where(flat, const(1.0, "float32"), step))
    depth = emit(builder, relax.op.subtract(zero, least))
    offset = build.quantize_at_run_time(depth, scale, const(0, "int32"), "uint8", 0, 255)
    zero_point_ = emit(builder, relax.op.astype(emit(builder, offset), "int32"))
    values = build.quantize_at_run_time(data, scale, zero_point_, "uint8", 0, 255)
    return emit(builder, values), scale, zero_point_


def _scale(builder: BlockBuilder, scale: Expr) -> Expr:
    return as_vector(builder, scale, "float32", shape_of(scale) in ((), (1,)))


def _scaled_with_bias(
    builder: BlockBuilder, total: Expr, a_scale: Expr, b_scale: Expr, bias: Expr | None
) -> Expr:
    """int32 sums times both scales (b's may be one per column), plus a float bias."""
    scale = emit(builder, relax.op.multiply(a_scale, b_scale))
    axis = len(shape_of(total) or ()) - 1 if shape_of(scale) else None
    real = build.dequantize_at_run_time(total, scale, const(0, "int32"), axis)
    return (
        real
        if bias is None
        else relax.op.add(emit(builder, real), as_vector(builder, bias, "float32", False))
    )
