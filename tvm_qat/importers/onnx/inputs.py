"""Graph inputs as parameters of `main`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from onnx import ValueInfoProto

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier
from tvm_qat.importers.onnx.load import Model
from tvm_qat.importers.onnx.tensors import storage_dtype
from tvm_qat.ir import TensorType, Var, tvm

MOST_ELEMENTS = 1 << 32
"""A tensor with more elements is taken for a damaged or hostile model."""


def model_inputs(model: Model) -> list[ValueInfoProto]:
    """The inputs that a caller must give: those that are not initializers."""
    stored = {tensor.name for tensor in model.proto.graph.initializer}
    return [value for value in model.proto.graph.input if value.name not in stored]


def parameters(model: Model, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Var]:
    """One variable per input, by the input's name.

    A named dimension is one symbolic variable everywhere; giving its value for one input gives it
    for all. Dimensions without name and value are independent variables.
    """
    values = model_inputs(model)
    unknown = sorted(set(input_shapes) - {value.name for value in values})
    if unknown:
        names = ", ".join(value.name for value in values)
        reason = f"there is no input {unknown[0]!r} to give a shape"
        raise InputError(located(reason, file=model.file, remedy=f"the inputs are: {names}"))
    dims: dict[str, Any] = {}
    shapes = {}
    for value in sorted(values, key=lambda v: v.name not in input_shapes):
        try:
            shapes[value.name] = _shape(value, input_shapes.get(value.name), dims)
        except InputError as error:
            raise type(error)(located(str(error), file=model.file, node=f"'{value.name}' (input)")) from None
    taken: set[str] = set()
    return {
        value.name: Var(identifier(value.name, taken), TensorType(shapes[value.name], _dtype(model, value)))
        for value in values
    }


def _dtype(model: Model, value: ValueInfoProto) -> str:
    try:
        return storage_dtype(value.type.tensor_type.elem_type)
    except InputError as error:
        raise type(error)(located(str(error), file=model.file, node=f"'{value.name}' (input)")) from None


def _shape(value: ValueInfoProto, given: Sequence[int] | None, dims: dict[str, Any]) -> list[Any]:
    if not value.type.HasField("tensor_type"):
        raise UnsupportedError("it is not a tensor")
    tensor = value.type.tensor_type
    if given is not None:
        given = [int(size) for size in given]
        if any(size <= 0 for size in given):
            raise InputError(f"the shape {given} that was asked for is not positive")
        if tensor.HasField("shape"):
            _bind(value, given, dims)
        shape: list[Any] = list(given)
    elif tensor.HasField("shape"):
        shape = [_dimension(dim, f"{value.name}_{i}", dims) for i, dim in enumerate(tensor.shape.dim)]
    else:
        raise InputError("its rank is not known; give its shape (input_shapes)")
    if math.prod(size for size in shape if isinstance(size, int)) > MOST_ELEMENTS:
        raise InputError(f"a shape of {shape} is too large")
    return shape


def _bind(value: ValueInfoProto, given: Sequence[int], dims: dict[str, Any]) -> None:
    declared = value.type.tensor_type.shape.dim
    if len(declared) != len(given):
        raise InputError(f"the shape {list(given)} that was asked for has not rank {len(declared)}")
    for dim, size in zip(declared, given, strict=True):
        if dim.dim_value > 0 and dim.dim_value != size:
            raise InputError(f"the shape {list(given)} contradicts the fixed dimension {dim.dim_value}")
        if dim.dim_param and dims.setdefault(dim.dim_param, size) != size:
            raise InputError(f"dimension {dim.dim_param!r} is {dims[dim.dim_param]} and {size}")


def _dimension(dim: Any, fallback: str, dims: dict[str, Any]) -> Any:
    if dim.dim_value > 0:
        return int(dim.dim_value)
    name = dim.dim_param or fallback
    if name not in dims:
        dims[name] = tvm.tirx.Var(re.sub(r"\W", "_", name), "int64")
    return dims[name]
