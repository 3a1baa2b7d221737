"""QONNX (arXiv:2206.07527): Quant, IntQuant, BipolarQuant, Trunc, as Brevitas, QKeras and FINN write them.

A Quant is round(clamp(x / scale + zero_point)), with the zero point inside the rounding, and back;
widths of 1 to 8 bits are stored in bytes, up to 16 in 16 bits, and nothing is rounded by that.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, array_of, dtype_of, is_const
from tvm_qat.qnn import build
from tvm_qat.qnn.arithmetic import INSIDE
from tvm_qat.qparams import STORAGE_RANGE, QParams

Array = npt.NDArray[Any]

DOMAINS = ("", "qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas", "finn.brevitas")
"""Every name that exporters have given to the domain of these operators; "" is ONNX's own."""

ROUNDINGS = {
    "ROUND": "half_even",
    "HALF_EVEN": "half_even",
    "CEIL": "ceil",
    "FLOOR": "floor",
    "UP": "away_from_zero",
    "DOWN": "toward_zero",
    "ROUND_TO_ZERO": "toward_zero",
    "HALF_UP": "half_away",
    "HALF_DOWN": "half_toward_zero",
}
"""QONNX looks at magnitudes: its UP is away from zero, its HALF_UP sends ties there."""

MOST_BITS = 16
NO_ZERO_POINT = np.zeros((), np.int32)


def quant(_builder: BlockBuilder, node: Node) -> Expr:
    """(round(clamp(x / scale + zero_point)) - zero_point) * scale."""
    bits, signed = _bits(node, 3), bool(node.whole("signed", 1))
    scale, zero_point, axis = _parameters(node)
    if bits == 1 and signed:
        if np.any(zero_point):
            raise UnsupportedError("one signed bit with a zero point is not supported")
        return _bipolar(node, scale, axis)
    low, high = _range(bits, signed, bool(node.whole("narrow", 0)))
    params = QParams(scale, zero_point, _storage(low, high, zero_point), axis, low, high)
    rounding = _rounding(node, "ROUND")
    return build.fake_quantize(_data(node), params, f"{INSIDE}{rounding}" if zero_point.any() else rounding)


def bipolar_quant(_builder: BlockBuilder, node: Node) -> Expr:
    """scale where x is at least zero, -scale below."""
    scale, axis = _vector(node, 1, "scale")
    return _bipolar(node, scale, axis)


def trunc(builder: BlockBuilder, node: Node) -> Expr:
    """Drops the least bits of a quantized value.

    q = round(x / scale + zero_point) / t, rounded by `rounding_mode`. Of five inputs (version 1)
    t = 2^(input bits - output bits), and the step stays as it is: the value shrinks by t. Of six
    (version 2) the fifth is the output's scale, t = output scale / scale, and the result is clamped.
    """
    scale, zero_point, axis = _parameters(node)
    if np.any(zero_point):
        raise UnsupportedError("truncation around a zero point is not supported")
    _bits(node, 3)
    second = len(node.inputs) > 5
    bits = _bits(node, 5 if second else 4)
    signed, narrow = bool(node.whole("signed", 1)), bool(node.whole("narrow", 0))
    if second:
        target, target_axis = _vector(node, 4, "output scale")
        axis = axis if target_axis is None else target_axis
        coarse = scale * 2.0 ** np.round(np.log2(target / scale))
        low, high = _range(bits, signed, narrow)
    else:
        target, coarse = scale, scale * 2.0 ** (_bits(node, 3) - bits)
        low, high = STORAGE_RANGE["int16"]
    whole = QParams(scale, NO_ZERO_POINT, "int32", axis if scale.ndim else None)
    fine = emit(builder, build.fake_quantize(_data(node), whole))
    storage = _storage(low, high, NO_ZERO_POINT)
    steps = QParams(coarse, NO_ZERO_POINT, storage, axis if coarse.ndim else None, low, high)
    q = emit(builder, build.quantize(fine, steps, _rounding(node, "FLOOR")))
    return build.dequantize(q, steps.with_(scale=np.broadcast_to(target, coarse.shape)))


def _bipolar(node: Node, scale: Array, axis: int | None) -> Expr:
    params = QParams(scale, NO_ZERO_POINT, "int8", axis, -1, 1)
    return build.fake_quantize(_data(node), params, "sign")


def _data(node: Node) -> Expr:
    data = node.require(0)
    if dtype_of(data) != "float32":
        raise UnsupportedError(f"it quantizes {dtype_of(data)}; only float32 is supported")
    return data


def _rounding(node: Node, default: str) -> str:
    mode = str(node.attrs.get("rounding_mode", default)).upper()
    if mode not in ROUNDINGS:
        raise UnsupportedError(f"rounding_mode {mode!r} is not known; use one of {', '.join(ROUNDINGS)}")
    return ROUNDINGS[mode]


def _bits(node: Node, index: int) -> int:
    values = _constant(node, index, "bit width").astype(np.float64)
    if values.size != 1 or not math.isfinite(values.reshape(())) or values.reshape(()) % 1:
        raise InputError(f"its bit width {values.reshape(-1)[:1]} is no single whole number")
    bits = int(values.reshape(()))
    if bits < 1:
        raise InputError(f"its bit width is {bits}")
    if bits > MOST_BITS:
        raise UnsupportedError(f"{bits} bits are not supported; quantize to at most {MOST_BITS}")
    return bits


def _range(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """qonnx's min_int and max_int: a narrow range loses its least value, unsigned its greatest."""
    if signed:
        return -(1 << bits - 1) + int(narrow), (1 << bits - 1) - 1
    return 0, (1 << bits) - 1 - int(narrow)


def _storage(low: int, high: int, zero_point: Array) -> str:
    """The narrowest dtype for the range and for zero points, which may lie beside it."""
    if low >= high:
        raise InputError(f"its range [{low}, {high}] holds one value only")
    least, most = min(low, int(zero_point.min())), max(high, int(zero_point.max()))
    for dtype in ("int8", "uint8", "int16", "uint16"):
        if STORAGE_RANGE[dtype][0] <= least and most <= STORAGE_RANGE[dtype][1]:
            return dtype
    raise UnsupportedError(f"the values {least} to {most} do not fit 16 bits")


def _parameters(node: Node) -> tuple[Array, Array, int | None]:
    """(scale float64, zero point int32, channel axis or None)."""
    scale, axis = _vector(node, 1, "scale")
    zero_point, other = _vector(node, 2, "zero point")
    if None not in (axis, other) and axis != other:
        raise UnsupportedError(f"scales vary along axis {axis}, but zero points along axis {other}")
    whole = np.rint(zero_point)
    if not np.all(np.isfinite(zero_point)) or np.any(whole != zero_point) or np.any(np.abs(whole) > 2**15):
        raise UnsupportedError("its zero point is no 16-bit whole number; export with whole zero points")
    return scale, whole.astype(np.int32), axis if axis is not None else other


def _vector(node: Node, index: int, what: str) -> tuple[Array, int | None]:
    """A parameter that broadcasts against the data, as () and None, or (n,) and the axis."""
    values = _constant(node, index, what)
    if not np.issubdtype(values.dtype, np.number):
        raise InputError(f"its {what} has dtype {values.dtype}")
    values = values.astype(np.float64)
    if values.size == 1:
        return values.reshape(()), None
    shape = node.shape(0)
    axes = [len(shape) - values.ndim + i for i, size in enumerate(values.shape) if size != 1]
    if len(axes) != 1 or axes[0] < 0:
        raise UnsupportedError(f"a {what} of shape {values.shape} varies along several axes")
    if isinstance(shape[axes[0]], int) and shape[axes[0]] != values.size:
        raise InputError(f"a {what} of shape {values.shape} does not broadcast against {list(shape)}")
    return values.reshape(-1), axes[0]


def _constant(node: Node, index: int, what: str) -> Array:
    value = node.require(index)
    if not is_const(value):
        raise UnsupportedError(f"its {what} is computed at run time; export with constant parameters")
    values = array_of(value)
    if values.size == 0:
        raise InputError(f"its {what} is empty")
    return values


CONVERTERS = {
    "BipolarQuant": bipolar_quant,
    "IntQuant": quant,
    "Quant": quant,
    "Trunc": trunc,
}
