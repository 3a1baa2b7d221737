"""TVM's own converters, for the operators on floats and shapes, called at one single place."""

from __future__ import annotations

from typing import Any

from tvm_qat.errors import UnsupportedError
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, relax

_SHAPE_OPERATORS = (
    "Reshape", "Resize", "ConstantOfShape", "Gather", "Slice", "Shape", "Expand", "Concat", "Equal",
    "Where", "Cast", "CastLike", "Squeeze", "Add", "Sub", "Mul", "Div", "Unsqueeze",
)  # fmt: skip
"""Operators whose converters take the shape of a tensor as it is; others get it as a tensor."""

_ONLY_DEFAULTS: dict[str, dict[str, tuple[Any, ...]]] = {
    "CumSum": {"reverse": (0,)},
    "IsInf": {"detect_negative": (1,), "detect_positive": (1,)},
    "SpaceToDepth": {"mode": ("DCR",)},
}
"""Attributes that TVM's converters overlook or translate to opaque kernels, and what they may be."""

_ONE_OUTPUT = ("BatchNormalization", "Dropout", "LayerNormalization")
"""Operators whose further outputs (statistics, masks) TVM's converters get wrong."""

_FOREIGN_ERRORS = (RuntimeError, ValueError, AssertionError, TypeError, LookupError, AttributeError)
"""What TVM's converters and type rules raise on models they do not expect."""


def stock(builder: BlockBuilder, node: Node) -> Expr:
    """The node through TVM's converter of the same name."""
    from tvm.relax.frontend.onnx import onnx_frontend

    _check_limits(node)
    inputs = onnx_frontend.onnx_input(_operand(builder, node, value) for value in node.inputs)
    attrs = dict(node.raw_attrs)
    attrs["tvm_custom"] = {"name": node.name, "num_outputs": len(node.outputs)}
    operator = onnx_frontend._get_convert_map()[node.op]
    try:
        result = operator.get_converter(node.opset)(builder, inputs, attrs, [{}, {}])
        return builder.normalize(result) if isinstance(result, relax.Expr) else result
    except _FOREIGN_ERRORS as error:
        raise UnsupportedError(f"TVM cannot translate it: {first_line(error)}") from None


def _check_limits(node: Node) -> None:
    for name, allowed in _ONLY_DEFAULTS.get(node.op, {}).items():
        if name in node.attrs and node.attrs[name] not in allowed:
            raise UnsupportedError(f"{name} {node.attrs[name]!r} is not supported")
    if node.op in _ONE_OUTPUT and any(node.outputs[1:]):
        raise UnsupportedError("only its first output is supported")
    if node.op == "RMSNormalization" and node.axis(-1, len(node.shape(0))) == 0:
        raise UnsupportedError("normalization over all axes is not supported")


def first_line(error: BaseException) -> str:
    """What a TVM error says, without the C++ trace around it."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith(("File ", "Traceback", "[bt]", "^"))]
    return (said[-1] if said else type(error).__name__)[:300]


def _operand(builder: BlockBuilder, node: Node, value: Expr | None) -> Expr | None:
    is_shape = value is not None and isinstance(value.ty, relax.ShapeType)
    if is_shape and node.op not in _SHAPE_OPERATORS:
        return builder.emit(relax.op.shape_to_tensor(value))
    return value


def decoded(attrs: dict[str, Any]) -> dict[str, Any]:
    """Strings of attributes as str."""
    return {key: value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            for key, value in attrs.items()}  # fmt: skip
