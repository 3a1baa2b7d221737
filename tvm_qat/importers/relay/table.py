"""Relay operator -> converter."""

from __future__ import annotations

import numpy as np

from tvm_qat.importers.relay import linear, movement, pointwise, quantized, reduction
from tvm_qat.importers.relay.node import Converter
from tvm_qat.ir import relax

_op = relax.op


def _q(function: object) -> Converter:
    """A qnn operator of one tensor, by its float function."""
    return quantized.unary(lambda _context, _node, real: function(real))  # type: ignore[operator]


_QUANTIZED: dict[str, Converter] = {
    "qnn.quantize": quantized.quantize,
    "qnn.dequantize": quantized.dequantize,
    "qnn.requantize": quantized.requantize,
    "qnn.simulated_quantize": quantized.simulated_quantize,
    "qnn.simulated_dequantize": quantized.simulated_dequantize,
    "qnn.conv2d": linear.qnn_conv2d,
    "qnn.conv2d_transpose": linear.qnn_conv2d_transpose,
    "qnn.dense": linear.qnn_dense,
    "qnn.contrib_dense_pack": linear.qnn_dense_pack,
    "qnn.batch_matmul": linear.qnn_batch_matmul,
    "qnn.add": quantized.elementwise("add"),
    "qnn.subtract": quantized.elementwise("subtract"),
    "qnn.mul": quantized.elementwise("multiply"),
    "qnn.concatenate": quantized.concatenate,
    "qnn.avg_pool2d": quantized.avg_pool2d,
    "qnn.leaky_relu": quantized.unary(quantized.leaky_relu),
    "qnn.softmax": quantized.unary(quantized.softmax),
    "qnn.hardswish": quantized.unary(quantized.hardswish),
    "qnn.tanh": _q(_op.tanh),
    "qnn.exp": _q(_op.exp),
    "qnn.sqrt": _q(_op.sqrt),
    "qnn.rsqrt": _q(_op.rsqrt),
    "qnn.erf": _q(_op.erf),
    "qnn.sigmoid": _q(_op.sigmoid),
    "qnn.log": _q(_op.log),
    "qnn.abs": _q(_op.abs),
}

_LINEAR: dict[str, Converter] = {
    **dict.fromkeys(("nn.conv1d", "nn.conv2d", "nn.conv3d"), linear.conv),
    "nn.conv2d_transpose": linear.conv2d_transpose,
    "nn.bias_add": linear.bias_add,
    "nn.dense": linear.dense,
    "nn.contrib_dense_pack": linear.dense_pack,
    "nn.batch_matmul": linear.batch_matmul,
    "fixed_point_multiply": linear.fixed_point_multiply,
}

_POINTWISE: dict[str, Converter] = {
    "add": pointwise.binary(_op.add, np.add),
    "subtract": pointwise.binary(_op.subtract, np.subtract),
    "multiply": pointwise.binary(_op.multiply, np.multiply),
    "divide": pointwise.divide,
    "maximum": pointwise.binary(_op.maximum, np.maximum),
    "minimum": pointwise.binary(_op.minimum, np.minimum),
    "power": pointwise.binary(_op.power, np.power),
    "left_shift": pointwise.shift(_op.left_shift),
    "right_shift": pointwise.shift(_op.right_shift),
    "sqrt": pointwise.unary(_op.sqrt, np.sqrt),
    "rsqrt": pointwise.unary(_op.rsqrt, lambda x: 1 / np.sqrt(x)),
    "exp": pointwise.unary(_op.exp, np.exp),
    "log": pointwise.unary(_op.log, np.log),
    "abs": pointwise.unary(_op.abs, np.abs),
    "negative": pointwise.unary(_op.negative, np.negative),
    "floor": pointwise.unary(_op.floor, np.floor),
    "ceil": pointwise.unary(_op.ceil, np.ceil),
    "sigmoid": pointwise.unary(_op.sigmoid),
    "tanh": pointwise.unary(_op.tanh),
    "erf": pointwise.unary(_op.erf),
    "clip": pointwise.clip,
    "cast": pointwise.cast,
    **dict.fromkeys(("copy", "annotation.stop_fusion", "annotation.checkpoint"), pointwise.identity),
    "nn.relu": pointwise.relu,
    "nn.leaky_relu": pointwise.leaky_relu,
    "nn.prelu": pointwise.prelu,
    "nn.softmax": pointwise.softmax,
    "nn.batch_norm": pointwise.batch_norm,
    "nn.layer_norm": pointwise.layer_norm,
    "nn.dropout": pointwise.dropout,
    "where": pointwise.where,
    "full": pointwise.full,
    "zeros": pointwise.filled(0),
    "ones": pointwise.filled(1),
}

_MOVEMENT: dict[str, Converter] = {
    "reshape": movement.reshape,
    "transpose": movement.transpose,
    "layout_transform": movement.layout_transform,
    "squeeze": movement.squeeze,
    "expand_dims": movement.expand_dims,
    "nn.batch_flatten": movement.batch_flatten,
    "concatenate": movement.concatenate,
    "stack": movement.stack,
    "split": movement.split,
    "strided_slice": movement.strided_slice,
    "take": movement.take,
    "nn.pad": movement.pad,
    "broadcast_to": movement.broadcast_to,
    "tile": movement.tile,
    "image.resize2d": movement.resize2d,
    "nn.upsampling": movement.upsampling,
}

_REDUCTIONS: dict[str, Converter] = {
    "nn.max_pool2d": reduction.max_pool2d,
    "nn.avg_pool2d": reduction.avg_pool2d,
    "nn.global_avg_pool2d": reduction.global_avg_pool2d,
    "nn.global_max_pool2d": reduction.global_max_pool2d,
    "nn.adaptive_avg_pool2d": reduction.adaptive_avg_pool2d,
    "mean": reduction.reduce(_op.mean),
    "sum": reduction.reduce(_op.sum),
    "max": reduction.reduce(_op.max),
    "min": reduction.reduce(_op.min),
}

CONVERTERS: dict[str, Converter] = _QUANTIZED | _LINEAR | _POINTWISE | _MOVEMENT | _REDUCTIONS
