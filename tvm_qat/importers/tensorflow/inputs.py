"""Placeholders as parameters of `main`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier
from tvm_qat.importers.tensorflow.model import MOST_ELEMENTS, Model, base, dtype
from tvm_qat.ir import TensorType, Var, tvm


def parameters(model: Model, input_shapes: Mapping[str, Sequence[int]]) -> dict[str, Var]:
    """One variable per input, by the name that callers use.

    A first dimension without a size is the batch: one symbolic variable for all inputs, and a size
    given for one input holds for all. Other dimensions without a size are variables of their own.
    """
    unknown = sorted(set(input_shapes) - set(model.inputs))
    if unknown:
        reason = f"there is no input {unknown[0]!r} to give a shape"
        remedy = f"the inputs are: {', '.join(model.inputs)}"
        raise InputError(located(reason, file=model.file, remedy=remedy))
    dims: dict[str, Any] = {}
    shapes: dict[str, list[Any]] = {}
    taken: set[str] = set()
    for name in sorted(model.inputs, key=lambda name: name not in input_shapes):
        try:
            shapes[name] = _shape(name, _placeholder(model, name), input_shapes.get(name), dims)
        except InputError as error:
            raise type(error)(located(str(error), file=model.file, node=f"{name!r} (input)")) from None
    return {
        name: Var(identifier(name, taken), TensorType(shapes[name], _dtype(model, name)))
        for name in model.inputs
    }


def _placeholder(model: Model, name: str) -> Any:
    node = model.graph.nodes.get(base(model.inputs[name]))
    if node is None or not node.op.startswith("Placeholder"):
        raise InputError("it names no placeholder of the graph")
    return node


def _dtype(model: Model, name: str) -> str:
    try:
        return dtype(_placeholder(model, name).attr["dtype"].type)
    except InputError as error:
        raise type(error)(located(str(error), file=model.file, node=f"{name!r} (input)")) from None


def _shape(name: str, node: Any, given: Sequence[int] | None, dims: dict[str, Any]) -> list[Any]:
    proto = node.attr["shape"].shape if "shape" in node.attr else None
    declared = None
    if proto is not None and not proto.unknown_rank:
        declared = [dim.size if dim.size >= 0 else None for dim in proto.dim]
    if given is not None:
        shape: list[Any] = _given(list(given), declared)
        if declared is not None and declared and declared[0] is None:
            dims.setdefault("batch", shape[0])
    elif declared is None:
        raise InputError("its rank is not known; give its shape (input_shapes)")
    else:
        names = ["batch", *(f"{name}_{i}" for i in range(1, len(declared)))]
        shape = [
            _symbol(label, dims) if size is None else size
            for label, size in zip(names, declared, strict=False)
        ]
    sizes = [size for size in shape if isinstance(size, int)]
    if min(sizes, default=1) < 1 or math.prod(sizes) > MOST_ELEMENTS:
        raise UnsupportedError(f"a shape of {shape} cannot be compiled")
    return shape


def _given(given: list[int], declared: list[int | None] | None) -> list[int]:
    if any(size <= 0 for size in given):
        raise InputError(f"the shape {given} that was asked for is not positive")
    if declared is None:
        return given
    fits = len(given) == len(declared) and all(
        want is None or want == size for size, want in zip(given, declared, strict=True)
    )
    if not fits:
        shown = [-1 if size is None else size for size in declared]
        raise InputError(f"the shape {given} that was asked for contradicts {shown}")
    return given


def _symbol(label: str, dims: dict[str, Any]) -> Any:
    if label not in dims:
        dims[label] = tvm.tirx.Var(identifier(label, set()), "int64")
    return dims[label]
