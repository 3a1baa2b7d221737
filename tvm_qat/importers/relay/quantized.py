"""Relay's `qnn` operators that carry scales.

Sums of products carry none in our dialect: those that Relay gave them come back as the input scale
of the requantize that follows, and are taken from there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.linear import padding_of, steps_of
from tvm_qat.importers.relay.node import Context, Converter, Node, Value, axis_in
from tvm_qat.ir import Expr, array_of, const, is_const, relax
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qparams import QParams

FORMULA = "half_away"
"""Relay's quantize divides, rounds half away from zero, and adds the zero point."""

_IN_INTEGERS = {"UPWARD": "tflite_single", "None": "tflite_single", "TONEAREST": "single_away"}
_IN_FLOAT = {"UPWARD": "half_up", "None": "half_up", "TONEAREST": "half_away"}
_FORMS = {"int64": _IN_INTEGERS, "None": _IN_INTEGERS, "float32": _IN_FLOAT, "float64": _IN_FLOAT}
"""compute_dtype -> rounding -> the requantize that has its bits (float64's up to float32's rounding)."""

_SIMULATED = {1: "int8", 2: "uint8", 3: "int32"}


def quantize(_context: Context, node: Node) -> Expr:
    """data, scale, zero point; `axis` counts only for vectors."""
    dtype = node.text("out_dtype", "int8")
    return _quantized(node, node.grid(1, 2, dtype, _channel_axis(node, 1)))


def _quantized(node: Node, grid: QParams) -> Expr:
    data = node.tensor(0)
    grid = grid.check_axis(node.shape(0))
    if is_const(data) and node.is_float(0):
        return const(arithmetic.quantize(array_of(data), grid, FORMULA))
    return build.quantize(data, grid, FORMULA)


def _channel_axis(node: Node, scale: int, default: int = -1) -> int:
    """The axis of vectors of parameters; scalars have none, whatever the attribute says."""
    rank = len(node.shape(0))
    vector = max(node.constant(i, "scale").size for i in (scale, scale + 1)) > 1
    return axis_in(node.whole("axis", default), rank) if vector else 0


def dequantize(_context: Context, node: Node) -> Expr:
    """data, scale, zero point. It stays at constants too: it says what the weights mean."""
    out = node.text("out_dtype", "float32")
    if out not in ("float32", "float16"):
        raise UnsupportedError(f"dequantizing to {out} is not supported")
    grid = node.grid(1, 2, node.dtype(0), _channel_axis(node, 1))
    return build.dequantize(node.tensor(0), grid.check_axis(node.shape(0)), out)


def requantize(_context: Context, node: Node) -> Expr:
    """data, scale, zero point, output scale, output zero point.

    In int64 (the default) Relay multiplies in fixed point and rounds once: half up if the rounding
    is UPWARD, which is `tflite_single` bit for bit, and half away from zero if it is TONEAREST,
    `single_away`. In float it multiplies by one float32 and rounds in the same two ways.
    """
    rounding, computed = node.text("rounding", "None"), node.text("compute_dtype", "None")
    if rounding not in _IN_INTEGERS or computed not in _FORMS:
        raise UnsupportedError(f"rounding {rounding!r} in {computed!r} is not supported")
    source = node.grid(1, 2, node.dtype(0), _channel_axis(node, 1)).check_axis(node.shape(0))
    target = node.grid(3, 4, node.text("out_dtype", "int8"), None)
    data = node.tensor(0)
    form = _FORMS[computed][rounding]
    if is_const(data):
        return const(arithmetic.requantize(array_of(data), source, target, form))
    return build.requantize(data, source, target, form)


def elementwise(name: str) -> Converter:
    """qnn.add, subtract, mul: lhs, rhs, then scale and zero point of lhs, rhs and output.

    Relay requantizes both operands of a sum and rounds twice; here the sum is rounded once.
    """

    def convert(_context: Context, node: Node) -> Expr:
        shapes = node.shape(0), node.shape(1)
        axes = [axis_in(node.whole(f"{side}_axis", -1), len(shape)) if shape else None
                for side, shape in zip(("lhs", "rhs"), shapes, strict=True)]  # fmt: skip
        x = node.grid(2, 3, node.dtype(0), axes[0])
        y = node.grid(4, 5, node.dtype(1), axes[1])
        target = node.grid(6, 7, node.dtype(0))
        return build.elementwise(name, node.tensor(0), node.tensor(1), x, y, target)

    return convert


def concatenate(_context: Context, node: Node) -> Expr:
    """Parts, their scales, their zero points (tuples), output scale and zero point."""
    parts, scales, zero_points = (node.tensors(i) for i in range(3))
    if not len(parts) == len(scales) == len(zero_points):
        raise InputError(f"{len(parts)} parts, {len(scales)} scales, {len(zero_points)} zero points")
    rank = len(node.tensors(0)[0].ty.shape or ())
    each = [Node(node.op, triple, {}) for triple in zip(parts, scales, zero_points, strict=True)]
    grids = [one.grid(1, 2, one.dtype(0)) for one in each]
    target = node.grid(3, 4, each[0].dtype(0))
    return build.concatenate(parts, grids, target, node.axis("axis", 0, rank))


def avg_pool2d(_context: Context, node: Node) -> Expr:
    """data, scale, zero point, output scale, output zero point; rounded once."""
    source = node.grid(1, 2, node.dtype(0))
    return pooled(node, node.tensor(0), source, node.grid(3, 4, node.dtype(0)))


def pooled(node: Node, data: Expr, source: QParams, target: QParams) -> Expr:
    """`data` through the window of `node`, a pooling over two dimensions."""
    return build.avg_pool(
        data, source, target, pool_size=steps_of(node, "pool_size", 2), strides=steps_of(node, "strides", 2),
        padding=padding_of(node, 2), dilation=steps_of(node, "dilation", 2),
        count_include_pad=node.flag("count_include_pad", False), ceil_mode=node.flag("ceil_mode", False),
        layout=node.text("layout", "NCHW"),
    )  # fmt: skip


def unary(function: Callable[[Context, Node, Expr], Expr]) -> Converter:
    """data, scale, zero point, output scale, output zero point; a table once it is folded."""

    def convert(context: Context, node: Node) -> Expr:
        source, target = node.grid(1, 2, node.dtype(0)), node.grid(3, 4, node.dtype(0))
        real = context.write(build.dequantize(node.tensor(0), source))
        return build.quantize(context.write(function(context, node, real)), target, FORMULA)

    return convert


def leaky_relu(_context: Context, node: Node, real: Expr) -> Expr:
    return relax.op.nn.leakyrelu(real, node.real("alpha", 0.0))


def softmax(_context: Context, node: Node, real: Expr) -> Expr:
    return relax.op.nn.softmax(real, node.axis("axis", -1, len(node.shape(0))))


def hardswish(context: Context, _node: Node, real: Expr) -> Expr:
    """x * clip(x + 3, 0, 6) / 6"""
    shifted = context.write(relax.op.add(real, const(3.0, "float32")))
    gate = context.write(relax.op.clip(shifted, 0, 6))
    product = context.write(relax.op.multiply(real, gate))
    return relax.op.divide(product, const(6.0, "float32"))


def simulated_quantize(_context: Context, node: Node) -> Value:
    """data, code of the dtype, scale, zero point: integers, which Relay held in float."""
    return _simulated(node, lambda data, grid: _quantized(Node(node.op, (data,), {}), grid))


def simulated_dequantize(_context: Context, node: Node) -> Value:
    """The way back; it reads what simulated_quantize wrote."""
    code = _code(node)
    if code and node.dtype(0) != _SIMULATED[code]:
        raise UnsupportedError(f"it reads {node.dtype(0)}, which no simulated_quantize made")
    return _simulated(node, build.dequantize)


def _simulated(node: Node, convert: Callable[[Expr, QParams], Expr]) -> Value:
    code = _code(node)
    if not code:
        return node.tensor(0)
    grid = node.grid(2, 3, _SIMULATED[code], _channel_axis(node, 2)).check_axis(node.shape(0))
    return convert(node.tensor(0), grid)


def _code(node: Node) -> int:
    """0 where the simulation is switched off."""
    code = node.constant(1, "data type").reshape(-1)
    if code.size != 1 or int(code[0]) not in (0, *_SIMULATED):
        raise UnsupportedError(f"data type code {np.array2string(code, threshold=4)}")
    return int(code[0])
