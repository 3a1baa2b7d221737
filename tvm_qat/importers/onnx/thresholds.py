"""FINN's MultiThreshold: how many thresholds a value reaches, scaled and shifted.

y = out_scale * count(x >= thresholds[channel]) + out_bias
"""

from __future__ import annotations

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, const, dtype_of, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import QParams

_MOST = 255
_LAYOUTS = {2: "NC", 3: "NWC", 4: "NCHW"}
"""What QONNX takes for the layout where none is given."""


def multi_threshold(builder: BlockBuilder, node: Node) -> Expr:
    """One threshold at zero whose results are opposite is bipolar quantization; others are counted."""
    data, thresholds = node.require(0), node.constant(1)
    if thresholds is None:
        raise UnsupportedError("its thresholds are computed at run time")
    if thresholds.ndim != 2 or not 1 <= thresholds.shape[1] <= _MOST or np.any(np.isnan(thresholds)):
        raise InputError(
            f"thresholds of shape {thresholds.shape}; rows of 1 to {_MOST} numbers are supported"
        )
    if dtype_of(data) != "float32":
        raise UnsupportedError(f"it compares {dtype_of(data)}; only float32 is supported")
    scale, bias = node.real("out_scale", 1.0), node.real("out_bias", 0.0)
    if thresholds.shape[1] == 1 and not np.any(thresholds) and scale > 0 and bias == -scale / 2:
        return build.fake_quantize(data, QParams(np.float64(scale / 2), qmin=-1, qmax=1), "sign")
    return _scaled(builder, _count(builder, node, data, thresholds), thresholds.shape[1], scale, bias)


def _count(builder: BlockBuilder, node: Node, data: Expr, thresholds: np.ndarray) -> Expr:
    shape = node.shape(0)
    layout = node.attrs.get("data_layout") or _LAYOUTS.get(len(shape), "NC")
    channel = layout.index("C") if "C" in layout else 1
    if channel >= len(shape) or (len(thresholds) != 1 and shape[channel] != len(thresholds)):
        raise InputError(f"{len(thresholds)} rows of thresholds for data of shape {list(shape)}")
    aligned = thresholds.astype(np.float32)
    aligned = aligned.reshape(len(thresholds), *[1] * (len(shape) - 1 - channel), thresholds.shape[1])
    wide = emit(builder, relax.op.expand_dims(data, [len(shape)]))
    reached = emit(builder, relax.op.greater_equal(wide, const(aligned)))
    return emit(builder, relax.op.sum(emit(builder, relax.op.astype(reached, "float32")), axis=[len(shape)]))


def _scaled(builder: BlockBuilder, count: Expr, most: int, scale: float, bias: float) -> Expr:
    """The count on its grid: in steps of out_scale, if the bias is a whole number of them."""
    storage = "int8" if most < 128 else "uint8"
    ones = QParams(np.float64(1), dtype=storage, qmin=0, qmax=most)
    zero_point = -bias / scale if scale > 0 else 0.5
    if zero_point % 1 or not -128 <= zero_point <= (127 if storage == "int8" else 255):
        counted = emit(builder, build.fake_quantize(count, ones))
        return relax.op.add(
            emit(builder, relax.op.multiply(counted, const(scale, "float32"))), const(bias, "float32")
        )
    if storage == "uint8" and zero_point < 0:
        raise UnsupportedError(f"{most} thresholds with a bias of {bias:g} do not fit a byte")
    q = emit(builder, build.quantize(count, ones))
    grid = QParams(np.float64(scale), np.asarray(int(zero_point), np.int32), storage, None, 0, most)
    return build.dequantize(q, grid)
