"""Small TFLite files, written with LiteRT's own schema, and LiteRT's reference kernels to run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

_TYPES = {
    "float32": schema.TensorType.FLOAT32, "float16": schema.TensorType.FLOAT16,
    "int8": schema.TensorType.INT8, "uint8": schema.TensorType.UINT8, "int16": schema.TensorType.INT16,
    "int32": schema.TensorType.INT32, "int64": schema.TensorType.INT64, "bool": schema.TensorType.BOOL,
    "resource": schema.TensorType.RESOURCE, "int4": schema.TensorType.INT4,
}  # fmt: skip


def tensor(
    name: str, shape: Sequence[int], dtype: str = "int8", scale: Any = None, zero_point: Any = 0, *,
    axis: int = 0, data: Any = None,
) -> schema.TensorT:  # fmt: skip
    """scale : None for a tensor that is not quantized, a list per channel along `axis`."""
    made = schema.TensorT()
    made.name, made.shape, made.type = name, list(shape), _TYPES[dtype]
    made.values = None if data is None else np.ascontiguousarray(data)
    if scale is not None:
        made.quantization = schema.QuantizationParametersT()
        made.quantization.scale = np.atleast_1d(np.asarray(scale, np.float32)).tolist()
        points = np.broadcast_to(zero_point, (len(made.quantization.scale),))
        made.quantization.zeroPoint = points.tolist()
        made.quantization.quantizedDimension = axis
    return made


def constant(name: str, data: Any, scale: Any = None, zero_point: Any = 0, *, axis: int = 0) -> Any:
    array = np.asarray(data)
    return tensor(name, array.shape, str(array.dtype), scale, zero_point, axis=axis, data=array)


def operator(
    kind: str, inputs: Sequence[int], outputs: Sequence[int], options: str | None = None, **fields: Any
) -> schema.OperatorT:
    """options : the type of its built-in options (`Conv2DOptions`); fields : theirs, as the schema says."""
    made = schema.OperatorT()
    made.kind, made.inputs, made.outputs = kind, list(inputs), list(outputs)
    if options is not None:
        made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
        made.builtinOptions = getattr(schema, f"{options}T")()
        for name, value in fields.items():
            assert hasattr(made.builtinOptions, name), name
            setattr(made.builtinOptions, name, value)
    return made


def graph(tensors: Any, operators: Any, inputs: Sequence[int], outputs: Sequence[int]) -> Any:
    made = schema.SubGraphT()
    made.tensors, made.operators = list(tensors), list(operators)
    made.inputs, made.outputs = list(inputs), list(outputs)
    return made


def model(*graphs: Any, signatures: Mapping[str, int] | None = None) -> bytes:
    """A file of these graphs; `signatures` name them by their number."""
    made = schema.ModelT()
    made.version, made.buffers, made.subgraphs = 3, [schema.BufferT()], list(graphs)
    kinds = sorted({o.kind for g in graphs for o in g.operators})
    made.operatorCodes = [_code(kind) for kind in kinds]
    for part in graphs:
        for entry in part.operators:
            entry.opcodeIndex = kinds.index(entry.kind)
        for entry in part.tensors:
            if entry.values is not None:
                buffer = schema.BufferT()
                buffer.data = np.frombuffer(entry.values.tobytes(), np.uint8)
                entry.buffer = len(made.buffers)
                made.buffers.append(buffer)
    made.signatureDefs = [_signature(key, index) for key, index in (signatures or {}).items()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _code(kind: str) -> Any:
    made = schema.OperatorCodeT()
    made.builtinCode = getattr(schema.BuiltinOperator, kind)
    made.deprecatedBuiltinCode = min(made.builtinCode, 127)
    made.version = 1
    return made


def _signature(key: str, index: int) -> Any:
    made = schema.SignatureDefT()
    made.signatureKey, made.subgraphIndex = key, index
    return made


def one(
    kind: str, tensors: Sequence[Any], options: str | None = None, *, outputs: int = 1, **fields: Any
) -> bytes:
    """A file of one operator: the last tensors are its results, those before its inputs."""
    count = len(tensors) - outputs
    places = list(range(count)), list(range(count, len(tensors)))
    given = [i for i in places[0] if tensors[i].values is None]
    return model(graph(tensors, [operator(kind, *places, options, **fields)], given, places[1]))


def litert(content: bytes, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The outputs of LiteRT's reference kernels, in order."""
    engine = interpreter.Interpreter(
        model_content=content, num_threads=1,
        experimental_op_resolver_type=interpreter.OpResolverType.BUILTIN_REF,
    )  # fmt: skip
    engine.allocate_tensors()
    for detail, array in zip(engine.get_input_details(), arrays, strict=True):
        engine.set_tensor(detail["index"], array)
    engine.invoke()
    return [np.array(engine.get_tensor(detail["index"])) for detail in engine.get_output_details()]
