"""Nodes whose operands are all constants, evaluated at import by onnx's reference evaluator.

Only operators that compute shapes and reorder small constants are folded; a DequantizeLinear of a
constant stays, because what it says about its weight is what the passes work with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.inputs import MOST_ELEMENTS
from tvm_qat.importers.onnx.tensors import Array, to_array

FOLDED = (
    "Abs", "Add", "And", "Cast", "CastLike", "Ceil", "Clip", "Concat", "ConstantOfShape", "Div",
    "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "Greater", "Less", "Log", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Reciprocal", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sigmoid", "Sign",
    "Size", "Slice", "Softplus", "Split", "Sqrt", "Squeeze", "Sub", "Tile", "Transpose", "Unsqueeze",
    "Where",
)  # fmt: skip


def folded(node: NodeProto, opset: int, operands: Sequence[Array | None]) -> list[Array] | None:
    """The outputs of `node`, or None if it is not one to fold. A None operand is left out."""
    if node.op_type not in FOLDED or node.domain:
        return None
    _check_size(node, operands)
    names = [f"x{i}" if value is not None else "" for i, value in enumerate(operands)]
    outputs = [f"y{i}" for i in range(len(node.output))]
    plain = helper.make_node(node.op_type, names, outputs)
    plain.attribute.extend(node.attribute)
    graph = helper.make_graph(
        [plain],
        "constants",
        [helper.make_value_info(name, _any_type(value)) for name, value in _present(names, operands)],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):  # NaN and infinities are constants like others
            results = ReferenceEvaluator(model).run(None, dict(_present(names, operands)))
    except (ValueError, TypeError, IndexError, RuntimeError, ZeroDivisionError, AttributeError) as error:
        raise InputError(f"it cannot be computed from its constants: {error}") from None
    return [np.asarray(result) for result in results]


def constant_of(node: NodeProto, folder: Any) -> Array:
    """The value of a Constant node, in any of its spellings."""
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return to_array(value, folder)
        if attribute.name in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if attribute.name in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    raise UnsupportedError("only tensors and numbers are supported as a constant")


def _present(names: Sequence[str], operands: Sequence[Array | None]) -> list[tuple[str, Array]]:
    return [(name, value) for name, value in zip(names, operands, strict=True) if value is not None]


def _any_type(value: Array) -> Any:
    return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _check_size(node: NodeProto, operands: Sequence[Array | None]) -> None:
    """Operators that can make much out of little are measured before they are run."""
    values = [None if value is None else value.astype(np.float64).reshape(-1) for value in operands]
    size = 0.0
    if node.op_type == "ConstantOfShape" and values[0] is not None:
        size = math.prod(values[0].tolist())
    elif node.op_type in ("Expand", "Tile") and values[0] is not None and values[1] is not None:
        size = math.prod(values[1].tolist()) * max(1, values[0].size)
    elif node.op_type == "Range" and all(value is not None for value in values):
        start, limit, delta = (float(value[0]) for value in values if value is not None)
        size = abs((limit - start) / delta) if delta else math.inf
    if not size < MOST_ELEMENTS / 64:
        raise InputError(f"it makes a constant of {size:g} elements")
