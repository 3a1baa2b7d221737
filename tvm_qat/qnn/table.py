"""The dialect as one table: registration, builders, printing, docs and tests read it.

To add an operator: its row here, its type rule in `types`, its NumPy meaning in `arithmetic`,
`linear` or `pointwise`, its builder in `build`, its kernel in `kernels`, its test. A test walks
the table and fails on a row that lacks one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tvm_qat.qnn import types

Kind = Literal["training", "boundary", "linear", "pointwise", "reduction", "movement"]


@dataclass(frozen=True)
class OpSpec:
    """One operator.

    args : operand names in order. `<role>_scale` and `<role>_zero_point` belong together.
    kind : training (float in, float out), boundary (between float and integers), linear (sums
        of products, int32 result), pointwise, reduction, movement.
    summary : one line for the printed table of operators.
    """

    name: str
    args: tuple[str, ...]
    kind: Kind
    infer: Callable[[Any, Any], Any]
    summary: str


_OUTPUT = ("output_scale", "output_zero_point")
_INPUT = ("input_scale", "input_zero_point")
_LINEAR = ("data", "weight", "input_zero_point", "kernel_zero_point")
_BINARY = ("lhs", "rhs", "lhs_scale", "lhs_zero_point", "rhs_scale", "rhs_zero_point", *_OUTPUT)
_UNARY = ("data", *_INPUT, *_OUTPUT)

_ROWS = (
    OpSpec("qnn.quantize", ("data", *_OUTPUT), "boundary", types.quantize, "float to integers"),
    OpSpec("qnn.dequantize", ("data", *_INPUT), "boundary", types.dequantize, "integers to float"),
    OpSpec("qnn.requantize", _UNARY, "pointwise", types.requantize, "one grid to another"),
    OpSpec(
        "qnn.fake_quantize", ("data", *_OUTPUT), "training", types.fake_quantize,
        "quantize and dequantize, by scale and zero point",
    ),
    OpSpec(
        "qnn.fake_quantize_range", ("data", "minimum", "maximum"), "training", types.fake_quantize,
        "quantize and dequantize, by a range that is nudged to hold zero",
    ),
    OpSpec("qnn.conv1d", _LINEAR, "linear", types.conv, "convolution over W"),
    OpSpec("qnn.conv2d", _LINEAR, "linear", types.conv, "convolution over H, W"),
    OpSpec("qnn.conv3d", _LINEAR, "linear", types.conv, "convolution over D, H, W"),
    OpSpec("qnn.conv2d_transpose", _LINEAR, "linear", types.conv2d_transpose, "transposed convolution"),
    OpSpec("qnn.dense", _LINEAR, "linear", types.dense, "data [..., K] times weight [N, K]"),
    OpSpec(
        "qnn.batch_matmul", ("x", "y", "x_zero_point", "y_zero_point"), "linear",
        types.batch_matmul, "product of two activations",
    ),
    OpSpec("qnn.add", _BINARY, "pointwise", types.elementwise, "sum, on the output's grid"),
    OpSpec("qnn.subtract", _BINARY, "pointwise", types.elementwise, "difference"),
    OpSpec("qnn.multiply", _BINARY, "pointwise", types.elementwise, "product"),
    OpSpec("qnn.divide", _BINARY, "pointwise", types.elementwise, "quotient"),
    OpSpec("qnn.minimum", _BINARY, "pointwise", types.elementwise, "lesser real value"),
    OpSpec("qnn.maximum", _BINARY, "pointwise", types.elementwise, "greater real value"),
    OpSpec(
        "qnn.concatenate", ("data", "input_scales", "input_zero_points", *_OUTPUT), "movement",
        types.concatenate, "parts on different grids, joined on one",
    ),
    OpSpec("qnn.avg_pool", _UNARY, "reduction", types.avg_pool, "average pooling, 1 to 3 dimensions"),
    OpSpec("qnn.mean", _UNARY, "reduction", types.mean, "mean over axes"),
    OpSpec("qnn.softmax", _UNARY, "reduction", types.softmax, "softmax over one axis"),
    OpSpec("qnn.lut", ("data", "table"), "pointwise", types.lut, "any function of 8 bits, by table"),
)  # fmt: skip

OPS: dict[str, OpSpec] = {row.name: row for row in _ROWS}


def argument(name: str, arg: str) -> int:
    """Position of the operand called `arg` in operator `name`."""
    return OPS[name].args.index(arg)
