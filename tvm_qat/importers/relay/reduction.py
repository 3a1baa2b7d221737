"""Pooling and reductions.

Relay pools quantized tensors in int32, between two casts, and divides with truncation. Here they
are pooled from their narrow integers and rounded once to nearest (`qnn.avg_pool` on one grid).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.linear import padding_of, steps_of
from tvm_qat.importers.relay.node import Context, Converter, Node
from tvm_qat.importers.relay.pointwise import widened
from tvm_qat.importers.relay.quantized import pooled
from tvm_qat.ir import Expr, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

_LAYOUTS = ("NCHW", "NHWC")


def max_pool2d(_context: Context, node: Node) -> Expr:
    _check_layout(node)
    return relax.op.nn.max_pool2d(
        node.tensor(0), pool_size=steps_of(node, "pool_size", 2), strides=steps_of(node, "strides", 2),
        padding=padding_of(node, 2), dilation=steps_of(node, "dilation", 2),
        ceil_mode=node.flag("ceil_mode", False), layout=node.text("layout", "NCHW"),
    )  # fmt: skip


def avg_pool2d(context: Context, node: Node) -> Expr:
    _check_layout(node)
    if not node.is_float(0):
        return _in_steps(context, node)
    return relax.op.nn.avg_pool2d(
        node.tensor(0), pool_size=steps_of(node, "pool_size", 2), strides=steps_of(node, "strides", 2),
        padding=padding_of(node, 2), dilation=steps_of(node, "dilation", 2),
        ceil_mode=node.flag("ceil_mode", False), count_include_pad=node.flag("count_include_pad", False),
        layout=node.text("layout", "NCHW"),
    )  # fmt: skip


def _in_steps(context: Context, node: Node) -> Expr:
    """Average pooling of integers, in their own dtype."""
    x = node.tensor(0)
    narrow = context.narrow.get(x)
    data = x if narrow is None else narrow
    grid = _steps(node, data)
    result = context.write(pooled(node, data, grid, grid))
    return result if narrow is None else widened(context, result)


def _steps(node: Node, data: Expr) -> QParams:
    """The grid of integers that stand for themselves."""
    dtype = str(data.ty.dtype)
    if dtype not in ("int8", "uint8", "int16"):
        raise UnsupportedError(f"{node.op} of {dtype} that is no cast of 8 or 16 bits is not supported")
    return QParams(np.asarray(1.0), dtype=dtype)


def global_avg_pool2d(context: Context, node: Node) -> Expr:
    if node.is_float(0):
        return relax.op.nn.adaptive_avg_pool2d(node.tensor(0), (1, 1), _check_layout(node))
    return _in_steps(context, _over_all(node))


def global_max_pool2d(_context: Context, node: Node) -> Expr:
    layout = _check_layout(node)
    return relax.op.max(node.tensor(0), [layout.index(axis) for axis in "HW"], keepdims=True)


def adaptive_avg_pool2d(context: Context, node: Node) -> Expr:
    size = node.wholes("output_size", [])
    if size not in ([], [1], [1, 1]):
        if not node.is_float(0):
            raise UnsupportedError(f"output_size {size} on {node.dtype(0)} is not supported")
        full = size * 2 if len(size) == 1 else size
        if len(full) != 2 or min(full) < 1:
            raise InputError(f"output_size is {size}")
        return relax.op.nn.adaptive_avg_pool2d(node.tensor(0), tuple(full), _check_layout(node))
    return global_avg_pool2d(context, node) if size else node.tensor(0)


def _over_all(node: Node) -> Node:
    """The same node with a window of the whole image."""
    layout = _check_layout(node)
    sizes = [node.shape(0)[layout.index(axis)] for axis in "HW"]
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedError("a global pool over dimensions of unknown length is not supported")
    return replace(node, attrs={"layout": layout, "pool_size": sizes})


def _check_layout(node: Node) -> str:
    layout = node.text("layout", "NCHW")
    if layout not in _LAYOUTS or len(node.shape(0)) != 4 or node.text("out_layout", "") not in ("", layout):
        raise UnsupportedError(f"layout {layout!r} of rank {len(node.shape(0))} is not supported")
    return layout


def reduce(function: Callable[..., Expr]) -> Converter:
    """mean, sum, max, min over `axis`, or over all others where `exclude` is set."""

    def convert(context: Context, node: Node) -> Expr:
        rank = len(node.shape(0))
        axes, keepdims = node.axes("axis", rank), node.flag("keepdims", False)
        if node.flag("exclude", False):
            axes = [axis for axis in range(rank) if axis not in axes]
        if function is relax.op.mean and not node.is_float(0):
            return _mean_in_steps(context, node, axes, keepdims)
        return function(node.tensor(0), axes, keepdims)

    return convert


def _mean_in_steps(context: Context, node: Node, axes: list[int], keepdims: bool) -> Expr:
    x = node.tensor(0)
    narrow = context.narrow.get(x)
    data = x if narrow is None else narrow
    grid = _steps(node, data)
    if not all(isinstance(node.shape(0)[axis], int) for axis in axes):
        raise UnsupportedError("a mean over a dimension of unknown length is not supported")
    result = context.write(build.mean(data, grid, grid, sorted(axes), keepdims))
    return result if narrow is None else widened(context, result)
