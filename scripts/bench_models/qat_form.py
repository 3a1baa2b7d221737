"""From the post-training form of a Q/DQ graph to the one that quantization-aware training exports.

Conv - Q - DQ - Relu - Q - DQ      (onnxruntime's quantizer, symmetric)
Conv - Relu - Q - DQ               (after)
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import numpy_helper

_ACTIVATIONS = ("Relu", "Clip")
_SUMS = ("Conv", "Add", "Gemm")


def quantize_after_activation(model: onnx.ModelProto) -> onnx.ModelProto:
    """Take the Q/DQ pairs between a sum and its activation function out of `model`, and return it."""
    graph = model.graph
    makers = {output: node for node in graph.node for output in node.output}
    uses = Counter(name for node in graph.node for name in node.input)
    dead: set[str] = set()
    for node in graph.node:
        if node.op_type not in _ACTIVATIONS:
            continue
        pair = _pair_before(node, makers, uses)
        if pair is None:
            continue
        quantize, dequantize = pair
        node.input[0] = quantize.input[0]
        dead |= {quantize.output[0], dequantize.output[0]}
        if node.op_type == "Clip":
            _plain_bounds(node, graph)
    live = [node for node in graph.node if node.output[0] not in dead]
    _keep(graph, _needed(live, {value.name for value in graph.output}))
    onnx.checker.check_model(model)
    return model


def _pair_before(
    node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], uses: Counter[str]
) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    dequantize = makers.get(node.input[0])
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return None
    quantize = makers.get(dequantize.input[0])
    source = makers.get(quantize.input[0]) if quantize is not None else None
    if quantize is None or source is None or source.op_type not in _SUMS:
        return None
    alone = uses[quantize.output[0]] == 1 and uses[dequantize.output[0]] == 1
    return (quantize, dequantize) if alone else None


def _plain_bounds(node: onnx.NodeProto, graph: onnx.GraphProto) -> None:
    """ReLU6's bounds came through Q/DQ pairs of their own."""
    for place, bound in ((1, 0.0), (2, 6.0)):
        name = f"{node.name}_bound{place}"
        graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), name))
        node.input[place] = name


def _needed(nodes: list[onnx.NodeProto], wanted: set[str]) -> list[onnx.NodeProto]:
    """The nodes that the outputs depend on; `nodes` is in topological order."""
    kept = []
    for node in reversed(nodes):
        if any(output in wanted for output in node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _keep(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    used = {name for node in nodes for name in node.input}
    initializers = [tensor for tensor in graph.initializer if tensor.name in used]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in initializers]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)
