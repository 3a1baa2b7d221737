"""One node of the graph as a converter sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.errors import InputError
from tvm_qat.ir import Expr, array_of, dtype_of, is_const, shape_of


@dataclass(frozen=True)
class Node:
    """A node with its operands translated.

    name : the source name that its bindings carry.
    inputs : None where an optional input is left out; trailing ones may be missing.
    input_types : ONNX element type names (`INT4`), "" where unknown. Narrow integers are stored
        wider, so the expression's dtype does not tell.
    attrs : plain Python values; strings are decoded.
    outputs : their names, "" where nobody reads one.
    """

    name: str
    op: str
    domain: str
    opset: int
    inputs: tuple[Expr | None, ...]
    input_types: tuple[str, ...]
    attrs: dict[str, Any]
    raw_attrs: dict[str, Any]
    outputs: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"'{self.name}' ({self.op})"

    def optional(self, index: int) -> Expr | None:
        return self.inputs[index] if index < len(self.inputs) else None

    def require(self, index: int) -> Expr:
        value = self.optional(index)
        if value is None:
            raise InputError(f"input {index} is missing")
        return value

    def type_of(self, index: int) -> str:
        """`INT4`, `FLOAT`...: what ONNX calls the element type of an input."""
        return self.input_types[index] if index < len(self.input_types) else ""

    def kind(self, index: int) -> str:
        """The same for a quantized tensor that must be there."""
        return self.type_of(index) or self.dtype(index).upper()

    def constant(self, index: int) -> Any | None:
        """The values of a constant input, None if it is left out or computed at run time."""
        value = self.optional(index)
        return array_of(value) if value is not None and is_const(value) else None

    def shape(self, index: int) -> tuple[Any, ...]:
        shape = shape_of(self.require(index))
        if shape is None:
            raise InputError(f"the rank of input {index} is not known")
        return shape

    def dtype(self, index: int) -> str:
        return dtype_of(self.require(index))

    def whole(self, name: str, default: int) -> int:
        return int(self.attrs.get(name, default))

    def real(self, name: str, default: float) -> float:
        return float(np.float32(self.attrs.get(name, default)))

    def wholes(self, name: str, default: Sequence[int]) -> list[int]:
        return [int(value) for value in self.attrs.get(name, default)]

    def axis(self, default: int, rank: int) -> int:
        """The attribute `axis` as a non-negative number below `rank`."""
        axis = self.whole("axis", default)
        if not -rank <= axis < rank:
            raise InputError(f"axis {axis} is out of range for rank {rank}")
        return axis % rank
