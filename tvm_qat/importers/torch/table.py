"""Operator -> converter. To add a source operator: its function, its row here.

A converter takes the writer and the node and returns an expression, or a list of them for several
results; it may write bindings on the way. It raises InputError or UnsupportedError with the reason
alone: the walk adds file and node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm_qat.importers.torch.aten import activation, conv, linear
from tvm_qat.importers.torch.node import Node
from tvm_qat.importers.writer import Writer
from tvm_qat.ir import relax

Converter: TypeAlias = Callable[[Writer, Node], Any]

_TABLE: dict[str, Converter] = {
    "aten.addmm": linear.addmm,
    "aten.bmm": linear.matmul,
    "aten.clamp": activation.clamp,
    "aten.conv1d": conv.conv,
    "aten.conv2d": conv.conv,
    "aten.conv3d": conv.conv,
    "aten.conv_transpose1d": conv.conv_transpose,
    "aten.conv_transpose2d": conv.conv_transpose,
    "aten.conv_transpose3d": conv.conv_transpose,
    "aten.convolution": conv.convolution,
    "aten.hardtanh": activation.clamp,
    "aten.linear": linear.linear,
    "aten.matmul": linear.matmul,
    "aten.mm": linear.matmul,
    "aten.relu": activation.plain(relax.op.nn.relu),
    "aten.relu6": activation.relu6,
}


def converter_of(op: str) -> Converter | None:
    """`op` as in Node; None for an operator without a translation."""
    return _TABLE.get(op)
