"""Evaluates one call of the dialect in NumPy: the oracle of every test, kernel and `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, attrs_of
from tvm_qat.qnn import linear, litert, pointwise
from tvm_qat.qnn.arithmetic import F32, Array, dequantize, quantize, requantize
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams, nudged_range


def evaluate(call: Expr, operands: Sequence[Any]) -> Array:
    """The value of `call` for NumPy operands (in the order of its arguments; tuples as lists)."""
    name = call.op.name
    attrs = attrs_of(call)
    named = dict(zip(OPS[name].args, operands, strict=True))
    return np.asarray(_EVALUATORS[name](named, attrs))


def _role(role: str, named: dict[str, Any], attrs: dict[str, Any], data: str = "data") -> QParams:
    output = role == "output"
    return QParams(
        named[f"{role}_scale"],
        named[f"{role}_zero_point"],
        attrs["out_dtype"] if output else str(named[data].dtype),
        attrs.get(f"{role}_axis"),
        attrs.get("qmin") if output else None,
        attrs.get("qmax") if output else None,
    )


def _quantize(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    return quantize(named["data"], _role("output", named, attrs), attrs["rounding"])


def _dequantize(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    real = dequantize(named["data"], _role("input", named, attrs))
    return real.astype(attrs.get("out_dtype", "float32"))


def _requantize(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    source, target = _role("input", named, attrs), _role("output", named, attrs)
    return requantize(named["data"], source, target, attrs["rounding"])


def _fake_quantize(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    params = _role("output", named, attrs)
    data = named["data"]
    return dequantize(quantize(data, params, attrs["rounding"]), params).astype(data.dtype)


def _fake_quantize_range(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    params = nudged_range(
        named["minimum"], named["maximum"], bits=attrs["bits"], signed=bool(attrs["signed"]),
        narrow_range=bool(attrs["narrow_range"]), axis=attrs.get("output_axis"),
    )  # fmt: skip
    data = named["data"]
    return dequantize(quantize(data, params, "nudged_range"), params).astype(data.dtype)


def _linear(function: Any) -> Any:
    return lambda named, attrs: function(*named.values(), **attrs)


def _binary(function: Any, exact: Any = None) -> Any:
    """exact : the same as LiteRT computes it."""

    def run(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
        x, y = _role("lhs", named, attrs, "lhs"), _role("rhs", named, attrs, "rhs")
        operands = named["lhs"], named["rhs"], x, y, _role("output", named, attrs)
        if attrs["rounding"] == "tflite":
            return np.asarray(exact(*operands))
        return np.asarray(function(*operands, rounding=attrs["rounding"]))

    return run


def _unary(function: Any) -> Any:
    def run(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
        source, output = _role("input", named, attrs), _role("output", named, attrs)
        return np.asarray(function(named["data"], source, output, **attrs))

    return run


def _concatenate(named: dict[str, Any], attrs: dict[str, Any]) -> Array:
    parts = named["data"]
    inputs = [
        QParams(scale, zero_point, str(part.dtype))
        for part, scale, zero_point in zip(
            parts, named["input_scales"], named["input_zero_points"], strict=True
        )
    ]
    return pointwise.concatenate(parts, inputs, _role("output", named, attrs), axis=attrs["axis"])


def _lut(named: dict[str, Any], _attrs: dict[str, Any]) -> Array:
    return pointwise.lut(named["data"], named["table"])


_EVALUATORS = {
    "qnn.quantize": _quantize,
    "qnn.dequantize": _dequantize,
    "qnn.requantize": _requantize,
    "qnn.fake_quantize": _fake_quantize,
    "qnn.fake_quantize_range": _fake_quantize_range,
    "qnn.conv1d": _linear(linear.conv),
    "qnn.conv2d": _linear(linear.conv),
    "qnn.conv3d": _linear(linear.conv),
    "qnn.conv2d_transpose": _linear(linear.conv2d_transpose),
    "qnn.dense": _linear(linear.dense),
    "qnn.batch_matmul": _linear(linear.batch_matmul),
    "qnn.add": _binary(pointwise.add, litert.add),
    "qnn.subtract": _binary(pointwise.subtract, litert.subtract),
    "qnn.multiply": _binary(pointwise.multiply, litert.multiply),
    "qnn.divide": _binary(pointwise.divide),
    "qnn.minimum": _binary(pointwise.minimum, litert.minimum),
    "qnn.maximum": _binary(pointwise.maximum, litert.maximum),
    "qnn.concatenate": _concatenate,
    "qnn.avg_pool": _unary(pointwise.avg_pool),
    "qnn.mean": _unary(pointwise.mean),
    "qnn.softmax": _unary(pointwise.softmax),
    "qnn.lut": _lut,
}

__all__ = ["F32", "evaluate"]
