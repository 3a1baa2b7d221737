"""The quantized operators of domain com.microsoft, as dequantize -> float operator -> quantize."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.floats import softmax_on
from tvm_qat.importers.onnx.grids import Grid, dequantized, emit, grid_of, quantized
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.pool import pooled
from tvm_qat.importers.onnx.qoperator import product_grid
from tvm_qat.ir import BlockBuilder, Expr, relax, shape_of
from tvm_qat.qparams import QParams

FloatOp: TypeAlias = Callable[[BlockBuilder, Node, Expr], Expr]


def real_input(builder: BlockBuilder, node: Node, index: int, scale: int, zero_point: int) -> Expr:
    """Input `index` as real numbers; its parameters are per tensor."""
    grid = grid_of(builder, node, scale, zero_point, node.kind(index))
    return emit(builder, dequantized(node.require(index), grid))


def output_grid(builder: BlockBuilder, node: Node, scale: int, zero_point: int) -> Grid:
    """The output has the zero point's type, or that of the first input without one."""
    kind = node.kind(zero_point if node.optional(zero_point) is not None else 0)
    return grid_of(builder, node, scale, zero_point, kind)


def unary(function: FloatOp) -> Callable[[BlockBuilder, Node], Expr]:
    """Inputs X, scale, zero point, Y's scale, zero point."""

    def convert(builder: BlockBuilder, node: Node) -> Expr:
        real = real_input(builder, node, 0, 1, 2)
        result = emit(builder, function(builder, node, real))
        return quantized(result, output_grid(builder, node, 3, 4))

    return convert


def binary(function: Callable[[Expr, Expr], Expr]) -> Callable[[BlockBuilder, Node], Expr]:
    """Inputs A, scale, zero point, B, scale, zero point, C's scale, zero point; broadcasting."""

    def convert(builder: BlockBuilder, node: Node) -> Expr:
        a, b = real_input(builder, node, 0, 1, 2), real_input(builder, node, 3, 4, 5)
        return quantized(emit(builder, function(a, b)), output_grid(builder, node, 6, 7))

    return convert


def concat(builder: BlockBuilder, node: Node) -> Expr:
    """Y's scale, zero point, then (tensor, scale, zero point) for each part."""
    if len(node.inputs) < 5 or (len(node.inputs) - 2) % 3:
        raise InputError(f"{len(node.inputs)} inputs are not a scale, a zero point and triples")
    parts = [real_input(builder, node, i, i + 1, i + 2) for i in range(2, len(node.inputs), 3)]
    rank = len(shape_of(parts[0]) or ())
    joined = emit(builder, relax.op.concat(parts, axis=node.axis(0, rank)))
    return quantized(joined, grid_of(builder, node, 0, 1, node.kind(1)))


def where(builder: BlockBuilder, node: Node) -> Expr:
    """condition, (X, scale, zero point), (Y, scale, zero point), Z's scale, zero point."""
    x, y = real_input(builder, node, 1, 2, 3), real_input(builder, node, 4, 5, 6)
    chosen = emit(builder, relax.op.where(node.require(0), x, y))
    return quantized(chosen, grid_of(builder, node, 7, 8, node.kind(8)))


def gemm(builder: BlockBuilder, node: Node) -> Expr:
    """A, scale, zero point; B, scale, zero point; int32 C; Y's scale, zero point (float without).

    C counts in steps of alpha * A's scale * B's scale. B may have a scale per column of the
    product. alpha goes into A's scale, so that no multiplication is left.
    """
    trans_a, trans_b = node.whole("transA", 0), node.whole("transB", 0)
    a = grid_of(builder, node, 1, 2, node.kind(0))
    b = grid_of(builder, node, 4, 5, node.kind(3), axis=0 if trans_b else 1, shape=node.shape(3))
    if not (isinstance(a, QParams) and isinstance(b, QParams)):
        raise UnsupportedError("parameters that are computed at run time are not supported")
    alpha = node.real("alpha", 1.0)
    if not alpha > 0:
        raise UnsupportedError(f"alpha {alpha:g} is not positive")
    a = a.with_(scale=a.scale * alpha)
    left, right = (
        emit(builder, dequantized(node.require(0), a)),
        emit(builder, dequantized(node.require(3), b)),
    )
    left = emit(builder, relax.op.permute_dims(left)) if trans_a else left
    right = emit(builder, relax.op.permute_dims(right)) if trans_b else right
    result = emit(builder, relax.op.matmul(left, right))
    bias = node.optional(6)
    if bias is not None:
        last = len(shape_of(bias) or ()) - 1
        grid = product_grid(a, b, last)
        real = emit(builder, dequantized(bias, grid.check_axis(shape_of(bias) or ())))
        result = emit(builder, relax.op.add(result, real))
    return result if node.optional(7) is None else quantized(result, output_grid(builder, node, 7, 8))


def leaky_relu(_builder: BlockBuilder, node: Node, data: Expr) -> Expr:
    return relax.op.nn.leakyrelu(data, node.real("alpha", 0.01))


def sigmoid(_builder: BlockBuilder, _node: Node, data: Expr) -> Expr:
    return relax.op.sigmoid(data)


def softmax(builder: BlockBuilder, node: Node, data: Expr) -> Expr:
    """The attribute `opset` says which Softmax is meant: before 13, the trailing axes as one."""
    return softmax_on(builder, node, data, node.whole("opset", 13))


def average_pool(builder: BlockBuilder, node: Node, data: Expr) -> Expr:
    return _channels_first(
        builder, node, data, lambda first: pooled(node, first, (shape_of(first) or ())[2:], "avg")
    )


def global_average_pool(builder: BlockBuilder, node: Node, data: Expr) -> Expr:
    rank = len(shape_of(data) or ())
    return _channels_first(
        builder, node, data, lambda first: relax.op.mean(first, axis=list(range(2, rank)), keepdims=True)
    )


def reduce_mean(_builder: BlockBuilder, node: Node, data: Expr) -> Expr:
    axes = node.wholes("axes", range(len(shape_of(data) or ())))
    return relax.op.mean(data, axis=axes, keepdims=bool(node.whole("keepdims", 1)))


def _channels_first(builder: BlockBuilder, node: Node, data: Expr, function: Callable[[Expr], Expr]) -> Expr:
    if not node.whole("channels_last", 0):
        return function(data)
    rank = len(shape_of(data) or ())
    first = emit(builder, relax.op.permute_dims(data, [0, rank - 1, *range(1, rank - 1)]))
    return relax.op.permute_dims(emit(builder, function(first)), [0, *range(2, rank), 1])


CONVERTERS = {
    "QGemm": gemm,
    "QLinearAdd": binary(relax.op.add),
    "QLinearAveragePool": unary(average_pool),
    "QLinearConcat": concat,
    "QLinearGlobalAveragePool": unary(global_average_pool),
    "QLinearLeakyRelu": unary(leaky_relu),
    "QLinearMul": binary(relax.op.multiply),
    "QLinearReduceMean": unary(reduce_mean),
    "QLinearSigmoid": unary(sigmoid),
    "QLinearSoftmax": unary(softmax),
    "QLinearWhere": where,
}
