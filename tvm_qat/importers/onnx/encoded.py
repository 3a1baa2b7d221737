"""What encodings need to know of an ONNX graph: its names, who reads a tensor, what has none."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import NodeProto, TensorProto, helper

from tvm_qat.importers.encodings import Overlay
from tvm_qat.importers.onnx.load import Model

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)


def tensor_names(model: Model) -> set[str]:
    graph = model.proto.graph
    given = {value.name for value in (*graph.input, *graph.initializer)}
    return given | {name for node in graph.node for name in node.output if name}


def channel_axes(model: Model) -> dict[str, int]:
    """The axis of the output channels of every tensor that is a weight, by who reads it.

    0 of a convolution, 1 of a transposed one, the columns of a matrix product's right side; a
    transpose, as exporters put it before a matrix product, is followed.
    """
    found: dict[str, int] = {}
    for node in reversed(model.proto.graph.node):
        for index, name in enumerate(node.input):
            axis = _axis(node, index, found)
            if name and axis is not None:
                found[name] = axis
    return found


def _axis(node: NodeProto, index: int, found: Mapping[str, int]) -> int | None:
    attrs = {attribute.name: attribute for attribute in node.attribute}
    if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        if index != 1:
            return None
        if node.op_type == "Gemm":
            return 0 if "transB" in attrs and attrs["transB"].i else 1
        return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}[node.op_type]
    below = found.get(node.output[0]) if node.output else None
    if below is None or node.op_type not in ("Identity", "Transpose"):
        return None
    if node.op_type == "Identity":
        return below
    order = list(helper.get_attribute_value(attrs["perm"])) if "perm" in attrs else None
    return -1 - below if order is None else order[below]


def missing_notes(model: Model, overlay: Overlay, types: Mapping[str, int]) -> list[dict[str, str]]:
    """For each node, why its float operands and results have no encoding."""
    if not overlay:
        return []
    notes = []
    for node in model.proto.graph.node:
        for code, names in (("not-quantized", node.input), ("result-not-quantized", node.output)):
            text = overlay.missing([name for name in names if types.get(name, 0) in _FLOATS])
            if text:
                notes.append({"kind": "unencoded", "node": node.name, "code": code, "text": text})
    return notes
