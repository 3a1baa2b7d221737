"""Horizon's symmetric fake quantization: clip(round(x / scale), qmin, qmax) * scale, on 8 or 16 bits.

HzCalibration(x), domain `horizon`, as Horizon's OpenExplorer writes it: attributes `scales` (one, or
one per channel of `axis`), or `thresholds` with scale = threshold / (2^(bits - 1) - 1), and `qtype`
(`int8`, `int16`; `float32` leaves the tensor alone). HzQuantize(x, scale) and
HzDequantize(q, scale) are its halves, with the scale as attribute `scales` or as second input.

The other custom nodes are what exporters of the same training write where torch has no symbol for
it: FakeQuantize, FakeQuant, SymmetricFakeQuant and LSQ (domains `horizon`, `custom`,
`custom_domain`), with the scale as second input or attribute `scale`; attributes `quant_min` and
`quant_max` (or `qmin`, `qmax`, `Qn`, `Qp`), else `bits` or `qtype`; a zero point, third input or
attribute, must be zero. A scale that was learned may have become negative: its magnitude counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.node import Node
from tvm_qat.ir import BlockBuilder, Expr, dtype_of
from tvm_qat.qnn import build
from tvm_qat.qparams import STORAGE_RANGE, QParams

DOMAINS = ("horizon", "custom", "custom_domain")
LEARNED = ("LSQ", "LSQFakeQuant", "LSQFakeQuantize")

_TYPES = {"int8": 8, "int16": 16, "qint8": 8, "qint16": 16}


def calibration(_builder: BlockBuilder, node: Node) -> Expr:
    if str(node.attrs.get("qtype", "int8")) == "float32":
        return node.require(0)
    return build.fake_quantize(_data(node), _params(node))


def quantize(_builder: BlockBuilder, node: Node) -> Expr:
    return build.quantize(_data(node), _params(node))


def dequantize(_builder: BlockBuilder, node: Node) -> Expr:
    data = node.require(0)
    if dtype_of(data) not in ("int8", "int16", "int32"):
        raise InputError(f"input 0 is {dtype_of(data)}, not int8, int16 or int32")
    params = QParams(*_scale(node), dtype=dtype_of(data), axis=_axis(node)).check_axis(node.shape(0))
    return build.dequantize(data, params)


def fake_quantize(_builder: BlockBuilder, node: Node) -> Expr:
    zero_point = node.attrs.get("zero_point", node.constant(2) if node.optional(2) is not None else 0)
    if zero_point is None or np.any(np.asarray(zero_point)):
        raise UnsupportedError("its zero point is not a constant zero; this fake quantization is symmetric")
    return build.fake_quantize(_data(node), _params(node))


def _data(node: Node) -> Expr:
    data = node.require(0)
    if dtype_of(data) != "float32":
        raise UnsupportedError(f"it quantizes {dtype_of(data)}; only float32 is supported")
    return data


def _params(node: Node) -> QParams:
    low, high = _range(node)
    storage = next((d for d, (a, b) in STORAGE_RANGE.items() if a <= low and high <= b), "int32")
    if storage == "int32":
        raise UnsupportedError(f"the values {low} to {high} do not fit 16 bits")
    params = QParams(*_scale(node), dtype=storage, axis=_axis(node), qmin=low, qmax=high)
    return params.check_axis(node.shape(0))


def _range(node: Node) -> tuple[int, int]:
    """From bounds if they are given, else symmetric from the number of bits."""
    low, high = (_first(node, *names) for names in (("quant_min", "qmin", "Qn"), ("quant_max", "qmax", "Qp")))
    if (low is None) != (high is None):
        raise InputError("only one of its bounds is given")
    if low is not None and high is not None:
        return int(low), int(high)
    bits = _bits(node)
    return -(1 << bits - 1), (1 << bits - 1) - 1


def _bits(node: Node) -> int:
    qtype = str(node.attrs.get("qtype", node.attrs.get("dtype", "int8")))
    if qtype not in _TYPES:
        raise UnsupportedError(f"qtype {qtype!r} is not supported; use one of {', '.join(_TYPES)}")
    bits = node.whole("bits", _TYPES[qtype])
    if not 2 <= bits <= 16:
        raise UnsupportedError(f"{bits} bits are not supported; use 2 to 16")
    return bits


def _scale(node: Node) -> tuple[npt.NDArray[np.float64]]:
    values: Any = node.constant(1) if node.optional(1) is not None else _first(node, "scales", "scale")
    if values is None and node.optional(1) is not None:
        raise UnsupportedError("its scale is computed at run time; export with a constant scale")
    if values is None:
        values = _first(node, "thresholds", "threshold")
        if values is None:
            raise InputError("it has neither a scale nor a threshold")
        values = np.asarray(values, np.float32) / np.float32((1 << _bits(node) - 1) - 1)
    scale = np.asarray(values, np.float32).astype(np.float64)
    scale = np.abs(scale) if node.op in LEARNED else scale
    return (scale.reshape(-1) if scale.ndim > 1 or scale.size == 1 else scale,)


def _axis(node: Node) -> int | None:
    """The attribute, else where a scale of the data's rank varies; weights vary along their first axis."""
    if "axis" in node.attrs or "ch_axis" in node.attrs:
        return int(node.attrs.get("axis", node.attrs.get("ch_axis", 0)))
    values = node.constant(1) if node.optional(1) is not None else None
    axes = [i for i, size in enumerate(values.shape) if size > 1] if values is not None else []
    rank = len(node.shape(0))
    return rank - values.ndim + axes[0] if values is not None and values.ndim == rank and axes else 0


def _first(node: Node, *names: str) -> Any:
    return next((node.attrs[name] for name in names if name in node.attrs), None)


CONVERTERS = {
    "FakeQuant": fake_quantize,
    "FakeQuantize": fake_quantize,
    "HzCalibration": calibration,
    "HzDequantize": dequantize,
    "HzQuantize": quantize,
    "SymmetricFakeQuant": fake_quantize,
    **dict.fromkeys(LEARNED, fake_quantize),
}
