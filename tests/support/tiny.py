"""Small modules for tests of what comes after the passes."""

from __future__ import annotations

import numpy as np

from tvm_qat.ir import BlockBuilder, IRModule, TensorType, Var, const, relax, tvm, with_source
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

GRID = QParams(np.array(0.05), np.array(3), "uint8")
OUTPUT_GRID = QParams(np.array(0.1), np.array(100), "uint8")
ACCUMULATOR = QParams(np.array(0.05 * 0.01), dtype="int32")


def float_module(seed: int = 0) -> IRModule:
    """(n, 2, 4, 4) `image` -> convolution `conv1`, relu -> (n, 3, 4, 4) `result`, in float32."""
    weight = np.random.default_rng(seed).normal(size=(3, 2, 3, 3)).astype(np.float32)
    builder = BlockBuilder()
    x = Var("image", TensorType((tvm.tirx.Var("n", "int64"), 2, 4, 4), "float32"))
    names = {"input_names": ["image"], "output_names": ["result"], "global_symbol": "main"}
    with builder.function("main", [x], attrs=names):
        with builder.dataflow():
            sums = builder.emit(with_source(relax.op.nn.conv2d(x, const(weight), padding=1), "conv1"))
            result = builder.emit_output(with_source(relax.op.nn.relu(sums), "relu1"))
        builder.emit_func_output(result)
    return builder.get()


def integer_module(seed: int = 0, batch: int | None = None) -> IRModule:
    """Float `image` (n, 2, 4, 4), quantized; convolution `conv1` (n, 3, 4, 4), dequantized `result`."""
    weight = np.random.default_rng(seed).integers(-128, 128, (3, 2, 3, 3)).astype(np.int8)
    builder = BlockBuilder()
    x = Var("image", TensorType((batch or tvm.tirx.Var("n", "int64"), 2, 4, 4), "float32"))
    names = {"input_names": ["image"], "output_names": ["result"], "global_symbol": "main"}
    shape = {"strides": [1, 1], "padding": [1, 1, 1, 1], "dilation": [1, 1]}
    with builder.function("main", [x], attrs=names):
        with builder.dataflow():
            data = builder.emit(with_source(qnn.quantize(x, GRID), "quantize1"))
            sums = builder.emit(with_source(qnn.conv(data, const(weight), 3, **shape), "conv1"))
            q = builder.emit(with_source(qnn.requantize(sums, ACCUMULATOR, OUTPUT_GRID), "conv1"))
            result = builder.emit_output(with_source(qnn.dequantize(q, OUTPUT_GRID), "dequantize1"))
        builder.emit_func_output(result)
    return builder.get()
