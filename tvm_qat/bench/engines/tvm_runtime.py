"""A package's code under TVM's runtime library alone, as a deployment loads it.

Not even the Python package `tvm` is imported: it brings the compiler's Python code, 40 MB of memory
that nothing here needs. So the names of the virtual machine's functions stand here once more, as
`tvm/runtime/vm.py` has them.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# tvm_ffi imports torch wherever it is installed: 250 MB that a deployment does not have.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
import tvm_ffi  # noqa: E402

_ALIGNMENT = 64
"""Bytes; kernels rely on it, as TVM's own allocations have it."""
_CPU, _POOLED = 1, 2


class Engine:
    """model : the linked member `mod.so` of a package."""

    def __init__(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        del threads  # TVM reads their number from its environment
        self.version = metadata.version("apache-tvm")
        for library in _runtime_libraries():
            ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
        self._machine = tvm_ffi.load_module(model)["vm_load_executable"]()
        self._machine["vm_initialization"](_CPU, 0, _POOLED)
        self._main = self._machine["main"]
        self._arrays = [_aligned(array) for array in inputs.values()]
        self._tensors = [tvm_ffi.from_dlpack(array) for array in self._arrays]
        self._result: Any = None

    def run(self) -> None:
        self._result = self._main(*self._tensors)

    def outputs(self) -> list[npt.NDArray[Any]]:
        parts = [self._result] if hasattr(self._result, "__dlpack__") else list(self._result)
        return [np.array(np.from_dlpack(part)) for part in parts]


def _runtime_libraries() -> list[Path]:
    """In order; `extra` has what models that sort call."""
    spec = util.find_spec("tvm")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent / "lib"
    found = [next(folder.glob(f"{name}.*"), None) for name in ("libtvm_runtime", "libtvm_runtime_extra")]
    if found[0] is None:
        raise FileNotFoundError(f"no libtvm_runtime in {folder}")
    return [library for library in found if library is not None]


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy: npt.NDArray[Any] = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy
