"""Graphs of whole numbers in float tensors: what DORY's and Deeploy's exporters (NEMO, quantlib) write.

Every tensor holds integers. A layer of quantlib ends with RequantShift,
clip(floor((x * mul + add) / div + 1/2)); a layer of NEMO with a division of integers,

    x * kappa + lambda; Cast to int64; Mul; Div; Cast to float; Clip to 0..255

Such a graph does not say how wide its inputs are; they are taken for 16 bits, which holds signed and
unsigned bytes. Its further values are as wide as its clips and shifts leave them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.tensors import Array, to_array
from tvm_qat.importers.onnx.whole_range import ONE
from tvm_qat.ir import BlockBuilder, Expr, Var, const, dtype_of, op_name, relax
from tvm_qat.qnn import build
from tvm_qat.qparams import STORAGE_RANGE, QParams

_ELEMENTWISE = ("relax.add", "relax.subtract", "relax.multiply")


_SUMS = ("Conv", "Gemm", "MatMul")
_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE)


def holds_whole_numbers(
    nodes: Iterable[NodeProto], weights: Mapping[str, Array], types: Mapping[str, int]
) -> bool:
    """Whether RequantShift ends a layer, or integer divisions do and all weights are whole numbers.

    weights : constants by name. types : ONNX element types of all values.
    """
    nodes = list(nodes)
    if any(node.op_type in CONVERTERS for node in nodes):
        return True
    makers = {name: node for node in nodes for name in node.output}
    divided = any(_divides_whole(node, makers, types) for node in nodes)
    used = [weights[n.input[1]] for n in nodes if n.op_type in _SUMS and n.input[1] in weights]
    return divided and bool(used) and all(np.array_equal(w, np.rint(w)) for w in used)


def _divides_whole(node: NodeProto, makers: Mapping[str, NodeProto], types: Mapping[str, int]) -> bool:
    """A division of integers that were floats before: Cast, Mul, Div."""
    if node.op_type != "Div" or types.get(node.input[0]) != TensorProto.INT64:
        return False
    first = makers.get(node.input[0])
    while first is not None and first.op_type == "Mul":
        first = next((makers[name] for name in first.input if name in makers), None)
    return first is not None and first.op_type == "Cast" and types.get(first.input[0]) in _FLOATS


def whole_input(builder: BlockBuilder, value: Expr) -> Expr:
    """A float input of such a graph as what it is."""
    if dtype_of(value) != "float32":
        return value
    return emit(builder, build.fake_quantize(value, QParams(ONE, dtype="int16")))


def requant_shift(builder: BlockBuilder, node: Node) -> Expr:
    """clip(floor((x * mul + add) / div + 1/2)), of n_levels_out values, signed or not."""
    data, divisor = node.require(0), attribute(node, "div")
    levels, signed = attribute(node, "n_levels_out"), bool(attribute(node, "signed"))
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


def attribute(node: Node, name: str) -> float:
    """A number that is written as a number or as a tensor of one element."""
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
