"""(domain, operator) -> converter. To add a source operator: its function, its row here.

A converter takes the builder and the node and returns an expression, or a list of them for
several outputs; it may emit bindings on the way. It raises InputError or UnsupportedError with
the reason alone: the walk adds file and node.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm_qat.importers.onnx import (
    conv,
    deeploy,
    dynamic,
    floats,
    horizon,
    microsoft,
    pool,
    qdq,
    qonnx,
    qoperator,
    resize,
    thresholds,
    whole,
)
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.stock import stock
from tvm_qat.ir import BlockBuilder

Converter: TypeAlias = Callable[[BlockBuilder, Node], Any]

_OWN: dict[str, Converter] = {
    "AveragePool": pool.average_pool,
    "Clip": floats.clip,
    "Conv": conv.conv,
    "ConvInteger": qoperator.conv_integer,
    "ConvTranspose": conv.conv_transpose,
    "DequantizeLinear": qdq.dequantize_linear,
    "DynamicQuantizeLinear": dynamic.dynamic_quantize_linear,
    "Einsum": floats.einsum,
    "Gather": floats.gather,
    "MatMulInteger": qoperator.matmul_integer,
    "MaxPool": pool.max_pool,
    "Pad": floats.pad,
    "Pow": floats.power,
    "QLinearConv": qoperator.qlinear_conv,
    "QLinearMatMul": qoperator.qlinear_matmul,
    "QuantizeLinear": qdq.quantize_linear,
    "Resize": resize.resize,
    "Softmax": floats.softmax,
    "Tile": floats.tile,
}
"""Operators of ONNX itself that have a converter here."""

_MICROSOFT: dict[str, Converter] = {
    **microsoft.CONVERTERS,
    "DequantizeLinear": qdq.dequantize_linear,
    "DynamicQuantizeMatMul": dynamic.dynamic_quantize_matmul,
    "MatMulIntegerToFloat": dynamic.matmul_integer_to_float,
    "QuantizeLinear": qdq.quantize_linear,
}

_STOCK = (
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "BatchNormalization", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor", "Cast",
    "CastLike", "Ceil", "Concat", "ConstantOfShape", "Cos", "Cosh", "CumSum", "DepthToSpace", "Div",
    "Dropout", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool", "GlobalLpPool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HardSigmoid",
    "HardSwish", "Hardmax", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LayerNormalization",
    "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "LpPool", "MatMul", "Max", "Mean",
    "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or", "PRelu",
    "RMSNormalization", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
    "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Round", "ScatterElements", "ScatterND", "Selu",
    "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size", "Slice", "Softplus",
    "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan", "Tanh",
    "ThresholdedRelu", "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
)  # fmt: skip
"""Operators that TVM's own converter translates rightly."""

_FOLDED_ONLY = ("Constant", "Identity")
"""Operators that the walk resolves before any converter is asked."""

_WHOLE: dict[str, Converter] = {**whole.CONVERTERS, **deeploy.CONVERTERS}

_TABLE: dict[tuple[str, str], Converter] = {
    **{("", name): stock for name in (*_STOCK, *_FOLDED_ONLY)},
    **{("", name): function for name, function in _OWN.items()},
    **{(domain, name): function for domain in qonnx.DOMAINS for name, function in qonnx.CONVERTERS.items()},
    **{
        (domain, name): function
        for domain in horizon.DOMAINS
        for name, function in horizon.CONVERTERS.items()
    },
    **{(domain, "MultiThreshold"): thresholds.multi_threshold for domain in qonnx.DOMAINS},
    **{(domain, name): function for domain in ("", "PACTOps") for name, function in _WHOLE.items()},
    **{("com.microsoft", name): function for name, function in _MICROSOFT.items()},
}


SHAPE_KEEPING = (
    *qonnx.CONVERTERS, "MultiThreshold", *sorted(set(_WHOLE) - {"IntegerMean"}),
    *sorted(set(horizon.CONVERTERS) - {"HzQuantize", "HzDequantize"}),
)  # fmt: skip
"""Operators that onnx does not know and whose result has the shape and type of their first input."""


SHAPE_CHANGING = ("IntegerMean",)
"""Those whose result has another shape, and the type of their first input."""


def is_standard(domain: str, op: str) -> bool:
    """Whether onnx itself knows the operator. Others' may stand in its domain too, without a name."""
    return not domain and op not in (*SHAPE_KEEPING, *SHAPE_CHANGING)


def converter_of(domain: str, op: str) -> Converter | None:
    """None for an operator without a translation."""
    return _TABLE.get((domain, op))
