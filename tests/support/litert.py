"""Single operators run by LiteRT's own interpreter with its reference kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import interpreter
from ai_edge_litert import schema_py_generated as schema

from tvm_qat.qparams import QParams

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Operand:
    """A tensor of the model; without `data` it is an input, or the output. grid : None if not quantized."""

    shape: tuple[int, ...]
    dtype: str
    grid: QParams | None = None
    data: Array | None = None


def like(array: Array, grid: QParams | None, constant: bool = False) -> Operand:
    return Operand(array.shape, str(array.dtype), grid, array if constant else None)


def run(
    op: str, inputs: Sequence[Operand], output: Operand, arrays: Sequence[Array], options: Any = None
) -> Array:
    """The result of one operator (a name of BuiltinOperator) with `options` (a schema object)."""
    content = model(op, inputs, output, options)
    resolver = interpreter.OpResolverType.BUILTIN_REF
    engine = interpreter.Interpreter(
        model_content=content, experimental_op_resolver_type=resolver, num_threads=1
    )
    engine.allocate_tensors()
    for detail, array in zip(engine.get_input_details(), arrays, strict=True):
        engine.set_tensor(detail["index"], array)
    engine.invoke()
    return np.asarray(engine.get_tensor(engine.get_output_details()[0]["index"]))


def model(op: str, inputs: Sequence[Operand], output: Operand, options: Any = None) -> bytes:
    """A TFLite file of one operator."""
    made = schema.ModelT()
    made.version = 3
    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, op)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.version = 1
    made.operatorCodes, made.buffers = [code], [schema.BufferT()]
    graph, node = schema.SubGraphT(), schema.OperatorT()
    graph.tensors = [_tensor(made, operand, f"t{i}") for i, operand in enumerate((*inputs, output))]
    graph.inputs = [i for i, operand in enumerate(inputs) if operand.data is None]
    graph.outputs, node.outputs = [len(inputs)], [len(inputs)]
    node.inputs = list(range(len(inputs)))
    if options is not None:
        kind = type(options).__name__.removesuffix("T")
        node.builtinOptionsType, node.builtinOptions = getattr(schema.BuiltinOptions, kind), options
    graph.operators, made.subgraphs = [node], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(made.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(made: Any, operand: Operand, name: str) -> Any:
    tensor = schema.TensorT()
    tensor.shape, tensor.name = list(operand.shape), name
    tensor.type = getattr(schema.TensorType, operand.dtype.upper())
    if operand.data is not None:
        stored = schema.BufferT()
        stored.data = list(np.ascontiguousarray(operand.data).tobytes())
        made.buffers.append(stored)
        tensor.buffer = len(made.buffers) - 1
    if operand.grid is not None:
        grid, tensor.quantization = operand.grid, schema.QuantizationParametersT()
        scale = grid.scale.astype(np.float32).reshape(-1)
        tensor.quantization.scale = scale.tolist()
        zero = np.broadcast_to(grid.zero_point.reshape(-1), scale.shape)
        tensor.quantization.zeroPoint = zero.tolist()
        tensor.quantization.quantizedDimension = grid.axis or 0
    return tensor
