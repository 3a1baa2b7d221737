"""Graphs of whole numbers in float tensors: what DORY's and Deeploy's exporters (quantlib, NEMO) write.

Every tensor holds integers; RequantShift ends a layer: clip(floor((x * mul + add) / div + 1/2)). Such a
graph does not say how wide its inputs are; they are taken for 16 bits, which holds signed and
unsigned bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.tensors import Array, to_array
from tvm_qat.ir import BlockBuilder, Expr, Var, const, dtype_of, op_name, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import STORAGE_RANGE, QParams

ONE = np.float64(1)
_ELEMENTWISE = ("relax.add", "relax.subtract", "relax.multiply")


def whole_input(builder: BlockBuilder, value: Expr) -> Expr:
    """A float input of such a graph as what it is."""
    if dtype_of(value) != "float32":
        return value
    return emit(builder, build.fake_quantize(value, QParams(ONE, dtype="int16")))


def requant_shift(builder: BlockBuilder, node: Node) -> Expr:
    """clip(floor((x * mul + add) / div + 1/2)), of n_levels_out values, signed or not."""
    data, divisor = node.require(0), _number(node, "div")
    levels, signed = _number(node, "n_levels_out"), bool(_number(node, "signed"))
    if divisor <= 0 or not 2 <= levels <= 1 << 16 or levels % 2:
        raise InputError(f"div {divisor:g} and n_levels_out {levels:g} make no range")
    if dtype_of(data) != "float32":
        raise UnsupportedError(f"it shifts {dtype_of(data)}; only whole numbers in float32 are supported")
    low, high = (-int(levels) // 2, int(levels) // 2 - 1) if signed else (0, int(levels) - 1)
    storage = next(d for d, (least, most) in STORAGE_RANGE.items() if least <= low and high <= most)
    made = builder.lookup_binding(data) if isinstance(data, Var) else None
    if made is not None and op_name(made) in _ELEMENTWISE:
        # A sum of two tensors has no grid of its own to be scaled on; its whole numbers have.
        data = emit(builder, build.fake_quantize(data, QParams(ONE, dtype="int32")))
    value = emit(builder, relax.op.multiply(data, const(_factor(node, 1) / divisor, "float32")))
    addend = _factor(node, 2) / divisor
    if np.any(addend):
        value = emit(builder, relax.op.add(value, const(addend, "float32")))
    grid = QParams(ONE, dtype=storage, qmin=low, qmax=high)
    return build.dequantize(emit(builder, build.quantize(value, grid, "half_up")), grid)


def _number(node: Node, name: str) -> float:
    value: Any = node.attrs.get(name)
    if isinstance(value, TensorProto):
        value = to_array(value, None)
    if value is None or np.size(value) != 1 or not np.all(np.isfinite(np.asarray(value, np.float64))):
        raise InputError(f"its attribute {name} is no number")
    return float(np.asarray(value, np.float64).reshape(()))


def _factor(node: Node, index: int) -> Array:
    values = node.constant(index)
    if values is None:
        raise UnsupportedError(f"input {index} is computed at run time")
    return np.asarray(values, np.float64)


CONVERTERS = {"RequantShift": requant_shift}
