"""onnxruntime on the CPU, all of its optimizations on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime


class Engine:
    """model : an ONNX file."""

    def __init__(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        self.version = str(onnxruntime.__version__)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._feed = dict(inputs)
        self._result: list[Any] = []

    def run(self) -> None:
        self._result = self._session.run(None, self._feed)

    def outputs(self) -> list[npt.NDArray[Any]]:
        return [np.asarray(part) for part in self._result]
