"""Average and max pooling over windows, with channels first or (com.microsoft) last."""

from __future__ import annotations

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.conv import LAYOUTS, window
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, relax

_POOLS = {
    "avg": (relax.op.nn.avg_pool1d, relax.op.nn.avg_pool2d, relax.op.nn.avg_pool3d),
    "max": (relax.op.nn.max_pool1d, relax.op.nn.max_pool2d, relax.op.nn.max_pool3d),
}


def average_pool(_builder: BlockBuilder, node: Node) -> Expr:
    return pooled(node, node.require(0), node.shape(0)[2:], "avg")


def max_pool(_builder: BlockBuilder, node: Node) -> Expr:
    if any(node.outputs[1:]):
        raise UnsupportedError("the output Indices is not supported")
    return pooled(node, node.require(0), node.shape(0)[2:], "max")


def pooled(node: Node, data: Expr, spatial: tuple[object, ...], kind: str) -> Expr:
    """`data` [N, C, spatial...] through the node's window; kind: a key of _POOLS."""
    if len(spatial) not in LAYOUTS:
        raise UnsupportedError(f"pooling over {len(spatial)} dimensions is not supported")
    if "kernel_shape" not in node.attrs:
        raise InputError("kernel_shape is missing")
    frame = window(node, spatial, tuple(node.wholes("kernel_shape", ())))
    return _POOLS[kind][len(spatial) - 1](
        data,
        pool_size=frame.kernel,
        strides=frame.strides,
        padding=frame.padding,
        dilation=frame.dilation,
        ceil_mode=bool(node.whole("ceil_mode", 0)),
        count_include_pad=bool(node.whole("count_include_pad", 0)),
        layout=LAYOUTS[len(spatial)][0],
    )
