"""QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger: integers without Q and DQ around them.

With known parameters a QLinear operator becomes dequantize -> float operator -> quantize, the
form that the passes fold. With parameters computed by the graph, which no pass can fold, it
becomes the integer operator, whose sum is scaled afterwards.
"""

from __future__ import annotations

import numpy as np

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.onnx.conv import (
    conv_attributes,
    float_conv,
    spatial_rank,
    with_bias,
)
from tvm_qat.importers.onnx.grids import Grid, as_vector, dequantized, emit, grid_of, quantized
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, array_of, const, is_const, relax, shape_of
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams


def qlinear_conv(builder: BlockBuilder, node: Node) -> Expr:
    """x, scale, zero point; w, scale, zero point; y's scale, zero point; int32 bias."""
    rank, bias = spatial_rank(node), node.optional(8)
    x = grid_of(builder, node, 1, 2, node.kind(0))
    w = grid_of(builder, node, 4, 5, node.kind(3), axis=0, shape=node.shape(3))
    y = grid_of(builder, node, 6, 7, node.kind(7))
    if isinstance(x, QParams) and isinstance(w, QParams):
        data, weight = (emit(builder, dequantized(node.require(i), g)) for i, g in ((0, x), (3, w)))
        result = emit(builder, float_conv(node, data, weight, 3))
        if bias is not None:
            real = emit(builder, dequantized(bias, product_grid(x, w, 0)))
            result = emit(builder, with_bias(builder, result, real, rank))
        return quantized(result, y)
    total = emit(builder, _integer_conv(node, 3, zero_point_of(x), zero_point_of(w)))
    if bias is not None:
        total = emit(builder, with_bias(builder, total, bias, rank))
    return quantized(emit(builder, scaled(builder, total, x, w, 1)), y)


def qlinear_matmul(builder: BlockBuilder, node: Node) -> Expr:
    """a, scale, zero point; b, scale, zero point; y's scale, zero point. b also per column."""
    a = grid_of(builder, node, 1, 2, node.kind(0), axis=max(len(node.shape(0)) - 2, 0), shape=node.shape(0))
    b = grid_of(builder, node, 4, 5, node.kind(3), axis=len(node.shape(3)) - 1, shape=node.shape(3))
    y = grid_of(builder, node, 6, 7, node.kind(7))
    if isinstance(a, QParams) and isinstance(b, QParams):
        parts = [emit(builder, dequantized(node.require(i), g)) for i, g in ((0, a), (3, b))]
        return quantized(emit(builder, relax.op.matmul(*parts)), y)
    if a.axis is not None:
        raise UnsupportedError("scales per row that are computed at run time are not supported")
    zero_points = zero_point_of(a), zero_point_of(b)
    total = emit(builder, integer_matmul(builder, node.require(0), node.require(3), *zero_points))
    return quantized(emit(builder, scaled(builder, total, a, b, len(shape_of(total) or ()) - 1)), y)


def conv_integer(builder: BlockBuilder, node: Node) -> Expr:
    """x, w, x's zero point, w's zero point (one, or one per output channel) -> int32."""
    x = zero_point(builder, node.optional(2))
    return _integer_conv(node, 1, x, zero_point(builder, node.optional(3)))


def matmul_integer(builder: BlockBuilder, node: Node) -> Expr:
    """A, B, a's zero point (or one per row), b's zero point (or one per column) -> int32."""
    a = zero_point(builder, node.optional(2))
    b = zero_point(builder, node.optional(3))
    return integer_matmul(builder, node.require(0), node.require(1), a, b)


def integer_matmul(builder: BlockBuilder, a: Expr, b: Expr, a_zero: Expr, b_zero: Expr) -> Expr:
    """(a - a_zero) times (b - b_zero), int32. A constant matrix b makes it a dense layer."""
    ranks = len(shape_of(a) or ()), len(shape_of(b) or ())
    if not shape_of(a_zero) and ranks[0] > 1:
        if is_const(b) and ranks[1] == 2:
            return build.dense(a, const(array_of(b).T), a_zero, b_zero)
        if not shape_of(b_zero) and ranks[1] > 1:
            return build.batch_matmul(a, b, a_zero, b_zero)
    column = emit(builder, relax.op.expand_dims(a_zero, -1)) if len(shape_of(a_zero) or ()) == 1 else a_zero
    wide = [
        emit(builder, relax.op.subtract(emit(builder, relax.op.astype(q, "int32")), zero))
        for q, zero in ((a, column), (b, b_zero))
    ]
    return relax.op.matmul(*wide, out_dtype="int32")


def zero_point(builder: BlockBuilder, value: Expr | None) -> Expr:
    """A zero point operand as int32, a scalar where it has one element; 0 if left out."""
    if value is None:
        return const(0, "int32")
    return as_vector(builder, value, "int32", shape_of(value) in ((), (1,)))


def zero_point_of(grid: Grid) -> Expr:
    return const(grid.zero_point, "int32") if isinstance(grid, QParams) else grid.zero_point


def product_grid(x: QParams, w: QParams, axis: int) -> QParams:
    """The grid of sums of products: scale x * w without a zero point, int32."""
    return QParams(x.scale * w.scale, np.int32(0), "int32", axis)


def scaled(builder: BlockBuilder, total: Expr, x: Grid, w: Grid, axis: int) -> Expr:
    """Sums of products as real numbers: times both scales, per channel along `axis`."""
    scale = emit(builder, relax.op.multiply(_scale_of(x), _scale_of(w)))
    per_channel = bool(shape_of(scale))
    return build.dequantize_at_run_time(total, scale, const(0, "int32"), axis if per_channel else None)


def _scale_of(grid: Grid) -> Expr:
    return const(grid.scale, "float32") if isinstance(grid, QParams) else grid.scale


def _integer_conv(node: Node, weight: int, x_zero: Expr, w_zero: Expr) -> Expr:
    attributes = conv_attributes(node, weight)
    return build.conv(node.require(0), node.require(weight), x_zero, w_zero, **attributes)
