"""A TFLite model in plain Python: what is left of the file once it has been checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.qparams import QParams


@dataclass(frozen=True)
class Tensor:
    """shape : as the file gives it; a dimension that may vary stands with the size of one run.
    dtype : NumPy's name; `resource` for the handle of a variable. Narrow integers are widened.
    data : the values of a constant. params : None for a tensor that is not quantized.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    data: npt.NDArray[Any] | None = None
    params: QParams | None = None


@dataclass(frozen=True)
class Operator:
    """name : that of its first result, which is what TFLite's tools call it.
    kind : `CONV_2D`; a custom operator by its own name.
    inputs : indices of tensors, -1 for an optional one that is left out.
    options : (type, flatbuffer table) of its built-in options.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    intermediates: tuple[int, ...] = ()
    options: tuple[int, Any] = (0, None)


@dataclass(frozen=True)
class Graph:
    """One subgraph; inputs and outputs are indices of tensors."""

    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """file : its name for messages. signatures : index of a graph by its key."""

    file: str
    graphs: tuple[Graph, ...]
    signatures: Mapping[str, int] = field(default_factory=dict)


DTYPES = {
    0: "float32",
    1: "float16",
    2: "int32",
    3: "uint8",
    4: "int64",
    6: "bool",
    7: "int16",
    9: "int8",
    10: "float64",
    13: "resource",
    15: "uint32",
    16: "uint16",
    17: "int4",
}
"""The element types that can be read, by their number in the schema."""


def widened(values: npt.NDArray[np.uint8], count: int) -> npt.NDArray[np.int8]:
    """`count` signed 4-bit integers, two a byte, the first in the low half; as int8."""
    low, high = (values << 4).astype(np.int8) >> 4, values.astype(np.int8) >> 4
    return np.stack([low, high], axis=1).reshape(-1)[:count]
