"""A model as exporters write attention: its batch of one stands in a Reshape."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def attention_like() -> onnx.ModelProto:
    """x (1, 4, 300) -> times a weight of 300x300 -> reshaped (1, 4, 3, 100), as exporters write it."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (300, 300)).astype(np.int8)
    arrays = {
        "w": weight, "ws": rng.random(300).astype(np.float32), "wz": np.zeros(300, np.int8),
        "xs": np.float32(0.02), "xz": np.int8(0), "shape": np.array([1, 4, 3, 100]),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "xs", "xz"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["sums"]),
        helper.make_node("Reshape", ["sums", "shape"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 300])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3, 100])
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
