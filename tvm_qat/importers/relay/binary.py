"""TVM's own binary form of arrays and of parameter files, read with every length checked.

Array: magic, reserved (8 bytes each), device type and id (int32), rank (int32), dtype (code and
bits as bytes, lanes as uint16), shape (int64 each), number of bytes (int64), data. File: magic,
reserved, names (count, then length and text of each), count, arrays. All little-endian.
Source of the layout: TVM's `SaveDLTensor` and `SaveParams`.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the name bfloat16)
import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError, UnsupportedError

Array = npt.NDArray[Any]

ARRAY_MAGIC = 0xDD5E40F096B4A13F
FILE_MAGIC = 0xF7E58D4F05049CB7
MOST_DIMENSIONS = 32
_KINDS = {0: "int", 1: "uint", 2: "float", 4: "bfloat"}
_WIDTHS = {"int": (8, 16, 32, 64), "uint": (1, 8, 16, 32, 64), "float": (16, 32, 64), "bfloat": (16,)}


@dataclass
class _Reader:
    data: bytes
    at: int = 0

    def take(self, size: int) -> bytes:
        if size < 0 or size > len(self.data) - self.at:
            raise InputError(f"is truncated: {size} bytes are missing at {self.at}")
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, form: str) -> int:
        return int(struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0])


def array_of_bytes(data: bytes) -> Array:
    """One array; InputError if `data` is anything else."""
    reader = _Reader(data)
    array = _array(reader)
    if reader.at != len(data):
        raise InputError(f"{len(data) - reader.at} bytes are left behind an array")
    return array


def arrays_of_file(data: bytes) -> dict[str, Array]:
    """The arrays of a parameter file (`save_param_dict`), by name."""
    reader = _Reader(data)
    if len(data) < 16 or reader.number("Q") != FILE_MAGIC:
        raise InputError("is not a file of parameters as TVM's save_param_dict writes it")
    reader.number("Q")
    names = [_name(reader) for _ in range(_count(reader))]
    count = _count(reader)
    if count != len(names):
        raise InputError(f"holds {len(names)} names for {count} arrays")
    if len(set(names)) != len(names):
        raise InputError("names a parameter twice")
    return {name: _array(reader) for name in names}


def _count(reader: _Reader) -> int:
    """A number of things that each take 8 bytes at least."""
    count = reader.number("Q")
    if count > (len(reader.data) - reader.at) // 8:
        raise InputError(f"is truncated: it announces {count} entries")
    return count


def _name(reader: _Reader) -> str:
    try:
        return reader.take(reader.number("Q")).decode()
    except UnicodeDecodeError:
        raise InputError("holds a name that is not UTF-8") from None


def _array(reader: _Reader) -> Array:
    if reader.number("Q") != ARRAY_MAGIC:
        raise InputError("holds something that is not an array")
    reader.number("Q")
    reader.take(8)
    rank = reader.number("i")
    dtype = _dtype(reader.number("B"), reader.number("B"), reader.number("H"))
    if not 0 <= rank <= MOST_DIMENSIONS:
        raise InputError(f"holds an array of {rank} dimensions")
    shape = [reader.number("q") for _ in range(rank)]
    size = reader.number("q")
    if any(d < 0 for d in shape) or math.prod(shape) * dtype.itemsize != size:
        raise InputError(f"holds an array of shape {shape} in {size} bytes")
    return np.frombuffer(reader.take(size), dtype).reshape(shape)


def _dtype(code: int, bits: int, lanes: int) -> np.dtype[Any]:
    kind = _KINDS.get(code, "")
    if lanes != 1 or bits not in _WIDTHS.get(kind, ()):
        raise UnsupportedError(f"holds an array of type code {code}, {bits} bits, {lanes} lanes")
    if kind == "bfloat":
        return np.dtype("bfloat16")
    return np.dtype(bool) if bits == 1 else np.dtype(f"{kind}{bits}").newbyteorder("<")
