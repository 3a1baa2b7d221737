"""Tensors of a model as NumPy arrays, embedded or beside the model, checked before they are read."""

from __future__ import annotations

import math
import stat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

from tvm_qat.errors import InputError, UnsupportedError

Array = npt.NDArray[Any]

NARROW = {"INT4": (-8, 7), "UINT4": (0, 15), "INT2": (-2, 1), "UINT2": (0, 3)}
"""Types below a byte, with their ranges; they are stored in the next wider type."""

MINIFLOATS = (
    "FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0", "FLOAT4E2M1",
)  # fmt: skip
"""Floats of a byte or less; they are stored as their bit patterns in uint8, one value a byte."""

_BITS = {"INT4": 4, "UINT4": 4, "INT2": 2, "UINT2": 2, "FLOAT4E2M1": 4}
_PLAIN = {
    "FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE", "BOOL", "INT8", "INT16", "INT32", "INT64",
    "UINT8", "UINT16", "UINT32", "UINT64",
}  # fmt: skip


def type_name(elem_type: int) -> str:
    """`INT4`, `FLOAT`, ...; the number itself where ONNX has no such type."""
    try:
        return str(TensorProto.DataType.Name(elem_type))
    except ValueError:
        return f"type {elem_type}"


def storage_dtype(elem_type: int) -> str:
    """The NumPy and TVM name of the dtype that holds values of an ONNX type."""
    name = type_name(elem_type)
    if name in NARROW:
        return "uint8" if name.startswith("U") else "int8"
    if name in MINIFLOATS:
        return "uint8"
    if name not in _PLAIN:
        raise UnsupportedError(f"data type {name} is not supported")
    return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))


def to_array(tensor: TensorProto, folder: Path | None) -> Array:
    """The values of `tensor` in storage dtype; `folder` is where external data may lie."""
    dtype = storage_dtype(tensor.data_type)
    if any(dim < 0 for dim in tensor.dims):
        raise InputError(f"tensor {tensor.name!r} has a negative dimension")
    if tensor.data_location == TensorProto.EXTERNAL:
        filled = TensorProto()
        filled.CopyFrom(tensor)
        filled.data_location = TensorProto.DEFAULT
        del filled.external_data[:]
        filled.raw_data = _external_bytes(tensor, folder)
        tensor = filled
    _check_length(tensor)
    try:
        values = numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InputError(f"tensor {tensor.name!r} cannot be read: {error}") from None
    if type_name(tensor.data_type) in MINIFLOATS:
        return np.asarray(values).view(np.uint8)
    return np.asarray(values).astype(dtype, copy=False)


def minifloat_table(name: str) -> Array:
    """The float32 value of each of 256 bit patterns; of float4 the upper four bits do not count."""
    dtype = onnx.helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))
    patterns = np.arange(256, dtype=np.uint8) & (15 if _BITS.get(name) == 4 else 255)
    return np.asarray(patterns.view(dtype).astype(np.float32))


def byte_length(tensor: TensorProto) -> int:
    """How many bytes the values take in a file."""
    bits = _BITS.get(type_name(tensor.data_type))
    if bits is None:
        bits = 8 * np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize
    return int(-(-math.prod(tensor.dims) * bits // 8))


def _check_length(tensor: TensorProto) -> None:
    """Before anything is allocated: the data must be as long as the dimensions say."""
    if tensor.HasField("raw_data"):
        found, expected, unit = len(tensor.raw_data), byte_length(tensor), "bytes"
    else:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
        packed = type_name(tensor.data_type) in _BITS
        expected = byte_length(tensor) if packed else math.prod(tensor.dims)
        found, unit = len(getattr(tensor, field)), "values"
    if found != expected:
        shape = "x".join(map(str, tensor.dims)) or "scalar"
        raise InputError(f"tensor {tensor.name!r} ({shape}) needs {expected} {unit} but has {found}")


def _external_bytes(tensor: TensorProto, folder: Path | None) -> bytes:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    what = f"external data of tensor {tensor.name!r}"
    if folder is None:
        raise InputError(f"{what}: the model came without a path; import it from its file")
    path = _path_below(folder, entries.get("location", ""), what)
    expected = byte_length(tensor)
    offset, length = _number(entries, "offset", 0, what), _number(entries, "length", expected, what)
    if length != expected:
        raise InputError(f"{what}: {length} bytes are declared but the shape needs {expected}")
    size = path.stat().st_size
    if offset + length > size:
        raise InputError(f"{what}: {path.name} ends at {size}, before {offset + length}; copy it again")
    with path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(length)


def _number(entries: dict[str, str], key: str, default: int, what: str) -> int:
    text = entries.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{what}: {key} {text!r} is not a number")
    return int(text)


def _path_below(folder: Path, location: str, what: str) -> Path:
    """The file that `location` names, if it lies below the model's folder, links resolved."""
    if not location or "\0" in location:
        raise InputError(f"{what}: no file is named")
    relative = Path(location)
    if relative.is_absolute() or ".." in relative.parts or "\\" in location:
        raise InputError(f"{what}: {location!r} leads out of the model's folder")
    base = folder.resolve()
    path = (base / relative).resolve()
    if not path.is_relative_to(base):
        raise InputError(f"{what}: {location!r} is a link out of the model's folder")
    if not path.exists():
        raise InputError(f"{what}: {location!r} is missing; put it beside the model")
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{what}: {location!r} is not a regular file")
    return path
