"""LiteRT (TensorFlow Lite) with its XNNPACK delegate, on its own file of the same network."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert.interpreter import Interpreter


class Engine:
    """model : a TFLite file. inputs : in the order of its own; images may be NCHW, as ONNX has them."""

    def __init__(self, model: str, inputs: Mapping[str, npt.NDArray[Any]], threads: int) -> None:
        self.version = metadata.version("ai-edge-litert")
        self._interpreter = Interpreter(model_path=model, num_threads=threads)
        self._interpreter.allocate_tensors()
        details = self._interpreter.get_input_details()
        for detail, array in zip(details, inputs.values(), strict=True):
            self._interpreter.set_tensor(detail["index"], _fitting(detail, array))

    def run(self) -> None:
        self._interpreter.invoke()

    def outputs(self) -> list[npt.NDArray[Any]]:
        details = self._interpreter.get_output_details()
        return [_real(detail, self._interpreter.get_tensor(detail["index"])) for detail in details]


def _fitting(detail: Mapping[str, Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """`array` in the layout and on the grid that the file's input has."""
    shape, dtype = tuple(detail["shape"]), np.dtype(detail["dtype"])
    if array.ndim == 4 and array.shape != shape:
        array = array.transpose(0, 2, 3, 1)
    if array.dtype != dtype and dtype.kind in "iu":
        scale, zero_point = detail["quantization"]
        limits = np.iinfo(dtype)
        array = np.clip(np.round(array / scale) + zero_point, limits.min, limits.max).astype(dtype)
    return np.ascontiguousarray(array)


def _real(detail: Mapping[str, Any], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Integers of an output as the numbers that they stand for."""
    scale, zero_point = detail["quantization"]
    if array.dtype.kind not in "iu" or not scale:
        return np.array(array)
    return np.asarray((array.astype(np.float32) - zero_point) * scale, np.float32)
