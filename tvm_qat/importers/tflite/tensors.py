"""One tensor of a TFLite file: its shape, data and quantization, checked against each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tflite.model import DTYPES, Tensor, widened
from tvm_qat.qparams import STORAGE_RANGE, QParams

MOST_ELEMENTS = 1 << 40
"""Larger than any memory."""

MOST_STATE = 1 << 24
"""Of a state that an operator keeps: unlike data, nothing in the file stands behind its size."""


def tensor_of(tensor: Any, buffers: list[Any]) -> Tensor:
    """tensor: `tflite.Tensor`; buffers: the file's `tflite.Buffer`s."""
    name = (tensor.Name() or b"").decode()
    try:
        return _tensor(tensor, name, buffers)
    except InputError as error:
        raise type(error)(located(f"tensor {name!r}: {error}")) from None


def _tensor(tensor: Any, name: str, buffers: list[Any]) -> Tensor:
    kind = DTYPES.get(tensor.Type())
    if kind is None:
        raise UnsupportedError(f"its element type has number {tensor.Type()}, which is not supported")
    shape = tuple(int(d) for d in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    if min(shape, default=0) < 0 or math.prod(shape) > MOST_ELEMENTS:
        raise InputError(f"its shape {list(shape)} is impossible")
    if tensor.Sparsity() is not None:
        raise UnsupportedError("it is stored sparsely, which is not supported; export it densely")
    index = tensor.Buffer()
    if index >= len(buffers):
        raise InputError(f"its buffer {index} is not among the file's {len(buffers)}")
    dtype = "int8" if kind == "int4" else kind
    data = _data(buffers[index], shape, kind) if kind != "resource" else None
    params = _params(tensor.Quantization(), shape, kind)
    if tensor.IsVariable() and data is None:
        data = _zeros(shape, dtype, params)
    return Tensor(name, shape, dtype, data, params)


def _zeros(shape: tuple[int, ...], dtype: str, params: QParams | None) -> npt.NDArray[Any]:
    """What a state that an operator keeps to itself begins with: a view of one element."""
    if math.prod(shape) > MOST_STATE:
        raise InputError(f"a state of shape {list(shape)} is impossible")
    zero = 0 if params is None else int(params.zero_point.reshape(-1)[0])
    return np.broadcast_to(np.asarray(zero, dtype), shape)


def _data(buffer: Any, shape: tuple[int, ...], kind: str) -> npt.NDArray[Any] | None:
    """The values of a constant: a view of the file. None for a tensor that is computed."""
    if hasattr(buffer, "Offset") and buffer.Offset() > 1:
        raise UnsupportedError("its data lies behind the flatbuffer (models beyond 2 GB)")
    if not buffer.DataLength():
        return None
    raw = np.asarray(buffer.DataAsNumpy())
    count = math.prod(shape)
    size = (count + 1) // 2 if kind == "int4" else count * np.dtype(kind).itemsize
    if raw.size != size:
        raise InputError(f"its shape {list(shape)} takes {size} bytes, but its buffer has {raw.size}")
    if kind == "int4":
        return widened(raw, count).reshape(shape)
    values: npt.NDArray[Any] = raw.view(np.dtype(kind).newbyteorder("<")).reshape(shape)
    return values


def _params(quantization: Any, shape: tuple[int, ...], kind: str) -> QParams | None:
    if quantization is None or not quantization.ScaleLength():
        return None
    if quantization.DetailsType():
        raise UnsupportedError("its quantization is of a custom or blockwise kind, which is not supported")
    with np.errstate(invalid="ignore"):  # some of the bit patterns that are no number; refused below
        scale = np.asarray(quantization.ScaleAsNumpy(), np.float64)
    given = quantization.ZeroPointLength()
    zero_point: Any = np.asarray(quantization.ZeroPointAsNumpy()) if given else np.zeros(1, np.int64)
    if kind in ("float32", "float16", "bool"):
        return None
    axis = int(quantization.QuantizedDimension())
    if scale.size > 1 and not 0 <= axis < len(shape):
        reason = f"it is quantized along dimension {axis}, but has {len(shape)}"
        raise InputError(f"{reason}; export it again")
    # biases of 16-bit models are sums of 64 bits; their grid is the same as in 32
    storage = {"int4": "int8", "int64": "int32"}.get(kind, kind)
    if storage not in STORAGE_RANGE:
        raise UnsupportedError(f"quantized {kind} is not supported")
    low, high = (-8, 7) if kind == "int4" else STORAGE_RANGE[storage]
    params = QParams(scale, zero_point, storage, axis if scale.size > 1 else None, low, high)
    return params.check_axis(shape)
