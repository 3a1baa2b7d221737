"""An ONNX file with other input shapes, so that every runtime reads one and the same file."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tvm_qat.errors import InputError, located


def with_shapes(model: str, shapes: Mapping[str, Sequence[int]], to: Path) -> str:
    """The path of a file like `model` whose inputs have `shapes`; `model` itself if none are given.

    Dimensions that are fixed in the file are replaced too: a batch of an exported network is
    usually fixed. What the file said of shapes further on no longer holds and is left out, so that
    each runtime infers it. Raises InputError for an input that is not there or has another rank.
    """
    if not shapes:
        return os.path.abspath(model)
    try:
        proto = onnx.load(model)
    except (OSError, DecodeError) as error:
        raise InputError(located(f"cannot be read: {error}", file=model)) from None
    dims = {value.name: value.type.tensor_type.shape.dim for value in proto.graph.input}
    for name, shape in shapes.items():
        if name not in dims:
            raise InputError(located(f"the model has no input {name!r}", file=model))
        if len(dims[name]) != len(shape):
            raise InputError(located(f"input {name!r} has {len(dims[name])} dimensions", file=model))
        for dim, size in zip(dims[name], shape, strict=True):
            dim.dim_value = size
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    del proto.graph.value_info[:]
    onnx.save(proto, to)
    return str(to)
