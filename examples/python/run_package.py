"""Runs a package with TVM's runtime library alone: neither TVM's Python code nor its compiler is loaded.

    python run_package.py model.tar inputs.npz outputs.npz

Arrays go by the model's own names. Needs numpy, apache-tvm-ffi, and libtvm_runtime.so: beside this file
(taken from apache-tvm's wheel), or in an installed apache-tvm. The package is not checked: tvm_qat.load
does that.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tarfile
import tempfile
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import tvm_ffi

_CPU, _POOLED = 1, 2
_ALIGNMENT = 64
"""Bytes; kernels rely on it."""


def load(package: str) -> tuple[dict[str, Any], Any]:
    """What the package says of itself, and its function `main` of tensors."""
    ctypes.CDLL(str(_runtime_library()), ctypes.RTLD_GLOBAL)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(package) as tar:
            description: dict[str, Any] = json.loads(_member(tar, "meta.json"))
            Path(folder, "mod.so").write_bytes(_member(tar, "mod.so"))
        machine = tvm_ffi.load_module(str(Path(folder, "mod.so")))["vm_load_executable"]()
    machine["vm_initialization"](_CPU, 0, _POOLED)
    return description, machine["main"]


def run(description: dict[str, Any], main: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    aligned = [_aligned(inputs[info["name"]]) for info in description["inputs"]]
    result = main(*map(tvm_ffi.from_dlpack, aligned))
    parts = [result] if hasattr(result, "__dlpack__") else list(result)
    outputs = map(np.array, map(np.from_dlpack, parts))
    return {info["name"]: output for info, output in zip(description["outputs"], outputs, strict=True)}


def _runtime_library() -> Path:
    found = util.find_spec("tvm")
    folders = [
        Path(__file__).parent,
        *(Path(place) / "lib" for place in (found and found.submodule_search_locations) or ()),
    ]
    files = [folder / "libtvm_runtime.so" for folder in folders]
    return next((file for file in files if file.exists()), files[0])


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _aligned(array: np.ndarray) -> np.ndarray:
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


if __name__ == "__main__":
    description, main = load(sys.argv[1])
    with np.load(sys.argv[2]) as given:
        made = run(description, main, dict(given))
    np.savez(sys.argv[3], **made)
