"""The reference beside another engine, as far as that shows its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.errors import InputError
from tvm_qat.ir import dtype_of, source_of
from tvm_qat.package import TensorInfo
from tvm_qat.verification.difference import Difference
from tvm_qat.verification.engines import Engine, Results
from tvm_qat.verification.points import Point
from tvm_qat.verification.result import Layer, Stage

Array = npt.NDArray[Any]


class Other:
    """name : of the engine. outputs : of the model."""

    def __init__(self, name: str, engine: Engine, outputs: tuple[TensorInfo, ...]) -> None:
        self._name, self._engine, self._outputs = name, engine, outputs
        self._layers: dict[Point, Difference] = {}
        self._ends = [Difference(None, not info.dtype.startswith("float")) for info in outputs]
        self._results = Results([])

    def run(self, inputs: Mapping[str, Array]) -> None:
        self._results = self._engine.run(inputs)

    def add(self, point: Point, value: Array) -> None:
        """A tensor of the reference, as it runs."""
        node = source_of(point.quantize) if point.quantize is not None else None
        other = self._results.layers.get(node or "")
        if other is not None and other.shape == value.shape and str(other.dtype) == dtype_of(point.reference):
            integers = not dtype_of(point.reference).startswith("float")
            self._layers.setdefault(point, Difference(point.grid, integers)).add(value, other)

    def add_outputs(self, found: list[Array]) -> None:
        """The model's outputs of the reference."""
        theirs = self._results.outputs
        if [array.shape for array in theirs] != [array.shape for array in found]:
            shapes = f"{[a.shape for a in theirs]}, not {[a.shape for a in found]}"
            raise InputError(f"{self._name} returns outputs of other shapes: {shapes}")
        for difference, ours, other in zip(self._ends, found, theirs, strict=True):
            difference.add(ours, np.asarray(other))

    def stage(self) -> Stage:
        layers = [
            Layer(point.name, point.op, found.figures(), None, source_of(point.quantize))
            for point, found in self._layers.items()
        ]
        ends = [
            Layer(info.name, "output", difference.figures())
            for info, difference in zip(self._outputs, self._ends, strict=True)
        ]
        return Stage("reference", self._name, (*layers, *ends))
