"""One-node models in onnxruntime: an independent source for what an operator means."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
from onnx import helper


def onnxruntime_node(op: str, inputs: dict[str, Any], output: str, opset: int = 21, **attrs: Any) -> Any:
    """The output (of dtype `output`) of one operator of ONNX for arrays by input name."""

    def value(name: str, dtype: Any, shape: Any = None) -> Any:
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)

    node = helper.make_node(op, list(inputs), ["result"], **attrs)
    graph = helper.make_graph(
        [node], "g", [value(n, a.dtype, a.shape) for n, a in inputs.items()], [value("result", output)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (result,) = session.run(None, inputs)
    return result
