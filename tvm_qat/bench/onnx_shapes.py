"""An ONNX file with other input shapes, for runtimes that take the shapes of the file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx


def with_shapes(model: str, shapes: Mapping[str, Sequence[int]], to: Path) -> str:
    """The path of a file like `model` whose inputs have `shapes`; `model` itself if none are given.

    What the file said of shapes further on no longer holds and is left out, so that the runtime
    infers it; outputs keep their rank.
    """
    if not shapes:
        return os.path.abspath(model)
    proto = onnx.load(model)
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            dim.dim_value = size
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del proto.graph.value_info[:]
    onnx.save(proto, to)
    return str(to)
