"""OpenVINO on the CPU, tuned for latency.

Float parts compute in float32, as they do in the other runtimes: by default OpenVINO takes bfloat16
for them where the CPU has it, which is another arithmetic than the model's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino


class Engine:
    """model : an ONNX file."""

    def __init__(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        self.version = str(openvino.__version__)
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "f32",
            # The worker is pinned already; a second binding would move threads off its cores.
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        self._model = core.compile_model(core.read_model(model), "CPU", config)
        self._request = self._model.create_infer_request()
        self._arrays = [np.ascontiguousarray(array) for array in inputs.values()]
        for name, array in zip(inputs, self._arrays, strict=True):
            self._request.set_tensor(name, openvino.Tensor(array, shared_memory=True))

    def run(self) -> None:
        self._request.infer()

    def outputs(self) -> list[npt.NDArray[Any]]:
        return [np.array(self._request.get_output_tensor(i).data) for i in range(len(self._model.outputs))]
