"""Pooling over windows of NHWC data."""

from __future__ import annotations

from tvm_qat.errors import InputError
from tvm_qat.importers.tflite.linear import window
from tvm_qat.importers.tflite.node import Node
from tvm_qat.ir import Expr, relax


def average_pool_2d(node: Node) -> Expr:
    """Only elements inside the data count."""
    return _pooled(node, relax.op.nn.avg_pool2d)


def max_pool_2d(node: Node) -> Expr:
    return _pooled(node, relax.op.nn.max_pool2d)


def _pooled(node: Node, function: object) -> Expr:
    options, shape = node.options("Pool2DOptions"), node.shape(0)
    if len(shape) != 4:
        raise InputError(f"its input has rank {len(shape)}, not 4")
    kernel = (int(options.FilterHeight()), int(options.FilterWidth()))
    frame = window(options, (shape[1], shape[2]), kernel, dilated=False)
    pooled = function(  # type: ignore[operator]
        node.real(0), pool_size=list(kernel), strides=list(frame.strides),
        padding=list(frame.padding), layout="NHWC",
    )  # fmt: skip
    return node.result(node.write(pooled), options.FusedActivationFunction())
