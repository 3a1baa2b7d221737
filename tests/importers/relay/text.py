"""Relay texts as TVM printed them: metadata and parameter files are written here byte by byte."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvm_qat.importers import import_model
from tvm_qat.ir import IRModule, relax
from tvm_qat.verification.evaluate import evaluate_module

Array = np.ndarray[Any, Any]
VERSION = '#[version = "0.0.5"]\n'
_CODES = {"i": 0, "u": 1, "f": 2, "b": 1}


def array_bytes(array: Array) -> bytes:
    """TVM's SaveDLTensor on the CPU."""
    bits = 1 if array.dtype == bool else 8 * array.dtype.itemsize
    head = struct.pack("<QQii", 0xDD5E40F096B4A13F, 0, 1, 0)
    kind = struct.pack("<iBBH", array.ndim, _CODES[array.dtype.kind], bits, 1)
    shape = struct.pack(f"<{array.ndim}q", *array.shape)
    return head + kind + shape + struct.pack("<q", array.nbytes) + np.ascontiguousarray(array).tobytes()


def params_bytes(arrays: Mapping[str, Array]) -> bytes:
    """TVM's save_param_dict."""
    names = b"".join(struct.pack("<Q", len(name)) + name.encode() for name in arrays)
    count = struct.pack("<Q", len(arrays))
    head = struct.pack("<QQ", 0xF7E58D4F05049CB7, 0) + count + names + count
    return head + b"".join(array_bytes(array) for array in arrays.values())


def metadata(constants: Sequence[Array]) -> str:
    """The section as TVM 0.8 to 0.18 wrote it, constants behind a Map and an Array node."""
    nodes: list[dict[str, Any]] = [
        {"type_key": ""},
        {"type_key": "Map", "keys": ["relay.Constant"], "data": [2]},
        {"type_key": "Array", "data": [3 + 2 * i for i in range(len(constants))]},
    ]
    for i, array in enumerate(constants):
        attrs = {"_checked_type_": str(4 + 2 * i), "data": str(i), "span": "0", "virtual_device_": "0"}
        nodes.append({"type_key": "relay.Constant", "attrs": attrs})
        kind = {"dtype": str(array.dtype), "shape": "0", "span": "0"}
        nodes.append({"type_key": "relay.TensorType", "attrs": kind})
    blobs = [base64.b64encode(array_bytes(array)).decode() for array in constants]
    document = {"root": 1, "nodes": nodes, "b64ndarrays": blobs, "attrs": {"tvm_version": "0.12.0"}}
    return "\n#[metadata]\n" + json.dumps(document, indent=2)


def program(main: str, constants: Sequence[Array] = ()) -> bytes:
    """main : `def @main(...) {...}` and what else the module has."""
    return (VERSION + main + (metadata(constants) if constants else "")).encode()


def imported(main: str, constants: Sequence[Array] = (), **options: Any) -> IRModule:
    mod = import_model(program(main, constants), **options)
    relax.analysis.well_formed(mod)
    assert len(mod["main"].body.blocks) == 1
    return mod


def simulate(main: str, constants: Sequence[Array] = (), *inputs: Array, **options: Any) -> list[Array]:
    """Outputs of the imported module from the NumPy reference."""
    return evaluate_module(imported(main, constants, **options), list(inputs))
