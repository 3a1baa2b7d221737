"""Short ways to write ONNX models in tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Dims = Sequence[int | str | None]


def model(
    nodes: Sequence[NodeProto], inputs: Mapping[str, Any], outputs: Sequence[str],
    constants: Mapping[str, Any] | None = None, *, opset: int = 21, functions: Sequence[Any] = (),
    domains: Mapping[str, int] | None = None,
) -> ModelProto:  # fmt: skip
    """inputs: name -> shape (float32), or (shape, type). constants: name -> array or TensorProto."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [_input(name, value) for name, value in inputs.items()],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [tensor(name, value) for name, value in (constants or {}).items()],
    )
    imports = {"": opset, "com.microsoft": 1} | dict(domains or {})
    made = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(name, version) for name, version in imports.items()],
        functions=list(functions),
        ir_version=10,
    )
    return with_output_types(made)


def with_output_types(made: ModelProto) -> ModelProto:
    """Outputs need an element type for onnxruntime; inference finds it where it can."""
    try:
        inferred = onnx.shape_inference.infer_shapes(made)
    except onnx.shape_inference.InferenceError:  # operators that onnx does not know: float32
        for output in made.graph.output:
            output.type.tensor_type.elem_type = TensorProto.FLOAT
        return made
    for output, found in zip(made.graph.output, inferred.graph.output, strict=True):
        output.type.CopyFrom(found.type)
    return made


def _input(name: str, value: Any) -> onnx.ValueInfoProto:
    typed = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], tuple)
    shape, kind = value if typed else (value, TensorProto.FLOAT)
    return helper.make_tensor_value_info(name, kind, shape)


def tensor(name: str, value: Any) -> TensorProto:
    if isinstance(value, TensorProto):
        copy = TensorProto()
        copy.CopyFrom(value)
        copy.name = name
        return copy
    return numpy_helper.from_array(np.asarray(value), name)


def narrow(values: Any, kind: str) -> TensorProto:
    """kind: INT4, UINT4, INT2 or UINT2."""
    dtype = getattr(ml_dtypes, kind.lower())
    return numpy_helper.from_array(np.asarray(values).astype(dtype), "narrow")


def node(op: str, inputs: str, outputs: str, name: str = "", domain: str = "", **attrs: Any) -> NodeProto:
    """inputs, outputs: names separated by blanks; `_` is an input that is left out."""
    names = ["" if part == "_" else part for part in inputs.split()]
    return helper.make_node(op, names, outputs.split(), name=name, domain=domain, **attrs)


def ms(op: str, inputs: str, outputs: str, name: str = "", **attrs: Any) -> NodeProto:
    return node(op, inputs, outputs, name, "com.microsoft", **attrs)


def f32(*values: float) -> np.ndarray:
    return np.float32(values[0]) if len(values) == 1 else np.array(values, np.float32)
