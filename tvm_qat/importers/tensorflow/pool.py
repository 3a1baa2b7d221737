"""Pooling over windows."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import InputError
from tvm_qat.importers.tensorflow.conv import layout_of, padding_of, spatial
from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import Expr, relax


def max_pool(node: Node) -> Expr:
    return relax.op.nn.max_pool2d(node.tensor(0), **_window(node))


def average_pool(node: Node) -> Expr:
    """What lies in the padding does not count."""
    return relax.op.nn.avg_pool2d(node.tensor(0), count_include_pad=False, **_window(node))


def _window(node: Node) -> dict[str, Any]:
    if len(node.shape(0)) != 4:
        raise InputError("its data has not rank 4")
    kernel, strides = spatial(node, "ksize"), spatial(node, "strides")
    padding = padding_of(node, kernel, strides, [1, 1])
    return {"pool_size": kernel, "strides": strides, "padding": padding, "layout": layout_of(node)}
