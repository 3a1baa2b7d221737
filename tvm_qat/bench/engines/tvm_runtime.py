"""A package's code under TVM's runtime library alone (`TVM_USE_RUNTIME_LIB=1`).

`tvm_qat.ir` and TVM's `relax` need the compiler's library, so this is the third place, beside
`ir` and `qnn.register`, that knows a name of TVM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import tvm
from tvm.runtime.vm import VirtualMachine


class Engine:
    """model : the linked member `mod.so` of a package."""

    def __init__(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        del threads  # TVM reads their number from its environment
        self.version = str(tvm.__version__)
        self._machine = VirtualMachine(tvm.runtime.load_module(model), tvm.cpu())
        self._main = self._machine["main"]
        self._tensors = [tvm.runtime.tensor(array) for array in inputs.values()]
        self._result: Any = None

    def run(self) -> None:
        self._result = self._main(*self._tensors)

    def outputs(self) -> list[npt.NDArray[Any]]:
        parts = [self._result] if hasattr(self._result, "numpy") else list(self._result)
        return [np.asarray(part.numpy()) for part in parts]
