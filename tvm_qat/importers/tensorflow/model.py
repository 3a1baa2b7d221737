"""A TensorFlow graph with everything around it resolved: what the walk starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tvm_qat.errors import InputError, UnsupportedError

Array = npt.NDArray[Any]
MOST_ELEMENTS = 1 << 32
"""A tensor with more elements is taken for a damaged or hostile model."""


@dataclass(frozen=True)
class Graph:
    """The model's own graph, or the body of a function in it.

    nodes : NodeDefs by name.
    arguments : of a function, in order; empty for the model's own graph.
    results : of a function, tensors in order.
    prefix : what stands before the names of its nodes in messages and spans.
    """

    nodes: Mapping[str, Any]
    arguments: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    prefix: str = ""


@dataclass(frozen=True)
class Model:
    """functions : FunctionDefs by name.

    inputs, outputs : tensors of the graph ("node:0") by the names that callers use, in order.
    variable : the value of a variable, by the name of the node that holds it.
    file : the model's name for messages.
    """

    graph: Graph
    functions: Mapping[str, Any]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    variable: Callable[[str], Array]
    file: str


def by_name(nodes: Iterable[Any], file: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for node in nodes:
        if node.name in found:
            raise InputError(f"{file}: two nodes are called {node.name!r}")
        found[node.name] = node
    return found


def base(tensor: str) -> str:
    """The node of a tensor: `conv:1` -> `conv`; also of a control input, `^conv`."""
    return tensor.removeprefix("^").partition(":")[0]


def array(proto: Any) -> Array:
    """The values of a TensorProto, after checking that it may claim so many."""
    shape = [dim.size for dim in proto.tensor_shape.dim]
    if min(shape, default=0) < 0 or np.prod([float(size) for size in shape]) > MOST_ELEMENTS / 64:
        raise InputError(f"a constant of the shape {shape}")
    dtype(proto.dtype)
    try:
        return np.asarray(tf.make_ndarray(proto))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"its value is damaged: {error}") from None


def dtype(kind: int) -> str:
    """NumPy's name of a TensorFlow dtype that tensors can have here."""
    try:
        name = str(tf.dtypes.as_dtype(kind).name)
    except TypeError:
        raise InputError(f"data type {kind} is not known") from None
    if name not in _DTYPES:
        raise UnsupportedError(f"tensors of {name} are not supported")
    return name


_DTYPES = (
    "float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32",
    "int64", "uint64", "bool",
)  # fmt: skip
