"""A trained simulation as a QDQ ONNX graph: what QAT exporters write, with names a person can read.

    x -> QuantizeLinear -> DequantizeLinear -> Conv -> Relu -> QuantizeLinear -> DequantizeLinear ->
                 weight int8 -> DequantizeLinear -/ /
                  bias int32 -> DequantizeLinear --/

Layer `block1/pointwise` becomes the nodes `block1/pointwise` (Conv), `block1/pointwise/relu`,
`.../quantize`, `.../dequantize`, `.../weight/dequantize` and `.../bias/dequantize`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from models.fake_quant import Grid
from models.nets import CLASSES, IMAGE, IMAGE_SHAPE, WEIGHTED, Layer, Spec, grids, shapes
from models.simulation import Simulation

OPSET = 17
IR_VERSION = 8  # the one that came with opset 17, so that older readers accept the file

OP_TYPES = {
    "conv": "Conv",
    "depthwise": "Conv",
    "gemm": "Gemm",
    "matmul": "MatMul",
    "add": "Add",
    "concat": "Concat",
    "max_pool": "MaxPool",
    "average_pool": "AveragePool",
    "global_average_pool": "GlobalAveragePool",
    "flatten": "Flatten",
}


@torch.no_grad()
def export(simulation: Simulation, softmax: bool) -> onnx.ModelProto:
    """`softmax` False ends the graph at the logits whatever the network's own tail is."""
    spec = simulation.spec
    graph = _Graph(simulation)
    graph.quantize_dequantize(IMAGE, IMAGE, f"{IMAGE}/dequantized")
    for layer in spec.layers:
        last = layer.name == spec.head and not softmax
        graph.layer(layer, "logits" if last else f"{layer.name}/dequantized")
    if softmax:
        graph.node("Softmax", "softmax", [f"{spec.head}/dequantized"], spec.output, axis=1)
    return _model(spec, graph, spec.output if softmax else "logits")


def _model(spec: Spec, graph: _Graph, output: str) -> onnx.ModelProto:
    image = helper.make_tensor_value_info(IMAGE, TensorProto.FLOAT, [spec.batch, *IMAGE_SHAPE])
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, [spec.batch, CLASSES])
    model = helper.make_model(
        helper.make_graph(graph.nodes, spec.name, [image], [result], graph.initializers),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tvm_qat scripts/make_models",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and initializers so far. Every value is named after its layer."""

    def __init__(self, simulation: Simulation) -> None:
        self.simulation = simulation
        self.signed = simulation.spec.signed
        self.owners = grids(simulation.spec)
        self.shapes = shapes(simulation.spec)
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._known: set[str] = set()

    def node(self, op: str, name: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op, inputs, [output], name=name, **attributes))
        return output

    def constant(self, name: str, value: np.ndarray) -> str:
        if name not in self._known:
            self._known.add(name)
            self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def layer(self, layer: Layer, output: str) -> None:
        inputs = [f"{name}/dequantized" for name in layer.inputs]
        attributes = _attributes(layer, channels=self.shapes[layer.inputs[0]][0])
        if layer.op in WEIGHTED:
            value = self._weighted(layer, inputs[0], attributes)
        else:
            result = f"{layer.name}/result"
            value = self.node(OP_TYPES[layer.op], layer.name, inputs, result, **attributes)
        self.quantize_dequantize(layer.name, self._activated(layer, value), output)

    def quantize_dequantize(self, name: str, value: str, output: str) -> None:
        """Layers that share a grid share its scale and zero point as initializers too."""
        grid, owner = self.simulation.grid(name), self.owners[name]
        dtype = np.int8 if self.signed else np.uint8
        qparams = [
            self.constant(f"{owner}/scale", grid.scale.numpy()),
            self.constant(f"{owner}/zero_point", grid.zero_point.numpy().astype(dtype)),
        ]
        stored = f"{name}/quantized"
        self.node("QuantizeLinear", f"{name}/quantize", [value, *qparams], stored)
        self.node("DequantizeLinear", f"{name}/dequantize", [stored, *qparams], output)

    def _weighted(self, layer: Layer, value: str, attributes: dict[str, Any]) -> str:
        deployed = self.simulation.deployed(layer)
        weight = deployed.weight_grid.quantize(deployed.weight).numpy()
        axis, result = 0, f"{layer.name}/result"
        if layer.op == "matmul":
            weight, axis = weight.T, 1  # (inputs, outputs), channels last
        weights = self._stored(layer, "weight", weight.astype(np.int8), deployed.weight_grid, axis)
        # Through float64: a float32 holds not every int32.
        bias = deployed.bias_grid.quantize(deployed.bias).double().numpy().astype(np.int32)
        biases = self._stored(layer, "bias", bias, deployed.bias_grid, 0)
        if layer.op != "matmul":
            inputs = [value, weights, biases]
            return self.node(OP_TYPES[layer.op], layer.name, inputs, result, **attributes)
        product = self.node("MatMul", layer.name, [value, weights], f"{layer.name}/product")
        return self.node("Add", f"{layer.name}/add", [product, biases], result)

    def _stored(self, layer: Layer, role: str, data: np.ndarray, grid: Grid, axis: int) -> str:
        """An integer constant with one scale per channel, and its DequantizeLinear."""
        name = f"{layer.name}/{role}"
        scale = grid.scale.flatten().numpy()
        inputs = [
            self.constant(name, data),
            self.constant(f"{name}/scale", scale),
            self.constant(f"{name}/zero_point", np.zeros(len(scale), data.dtype)),
        ]
        output = f"{name}/dequantized"
        return self.node("DequantizeLinear", f"{name}/dequantize", inputs, output, axis=axis)

    def _activated(self, layer: Layer, value: str) -> str:
        output = f"{layer.name}/activated"
        match layer.activation:
            case "":
                return value
            case "relu":
                return self.node("Relu", f"{layer.name}/relu", [value], output)
            case "relu6":
                low = self.constant(f"{layer.name}/min", np.array(0, np.float32))
                high = self.constant(f"{layer.name}/max", np.array(6, np.float32))
                return self.node("Clip", f"{layer.name}/relu6", [value, low, high], output)
        raise ValueError(f"layer '{layer.name}': unknown activation '{layer.activation}'")


def _attributes(layer: Layer, channels: int) -> dict[str, Any]:
    """`channels`: of the layer's input."""
    window, same = [layer.kernel, layer.kernel], [layer.kernel // 2] * 4
    match layer.op:
        case "conv":
            return {"kernel_shape": window, "pads": same}
        case "depthwise":
            return {"kernel_shape": window, "pads": same, "group": channels}
        case "max_pool" | "average_pool":
            return {"kernel_shape": window, "strides": window}
        case "gemm":
            return {"transB": 1}
        case "concat" | "flatten":
            return {"axis": 1}
    return {}
