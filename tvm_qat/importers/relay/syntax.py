"""What the parser makes of Relay's text: a tree of a few kinds of nodes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy.typing as npt


@dataclass(frozen=True)
class Tensor:
    """A tensor type. shape: integers, and None where the text has `?`."""

    shape: tuple[int | None, ...]
    dtype: str


Type: TypeAlias = Tensor | tuple[Any, ...] | None
"""A tensor, a tuple of types, or None for what is not a value (functions, references)."""


@dataclass(frozen=True)
class Constant:
    value: npt.NDArray[Any]


@dataclass(frozen=True)
class Meta:
    """`meta[relay.Constant][3]`, as an expression or as the value of an attribute."""

    kind: str
    index: int
    line: int


@dataclass(frozen=True)
class Variable:
    """name : as written, so `3.0` may be a projection of `3`."""

    name: str
    line: int


@dataclass(frozen=True)
class Global:
    name: str
    line: int


@dataclass(frozen=True)
class TupleOf:
    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Projection:
    whole: Node
    index: int
    line: int


@dataclass(frozen=True)
class Call:
    """callee : name of an operator, or an expression whose value is a function.

    span : name of the node in the model that Relay imported, or "".
    """

    callee: str | Node
    args: tuple[Node, ...]
    attrs: dict[str, Any]
    line: int
    span: str = ""


@dataclass(frozen=True)
class Function:
    params: tuple[tuple[str, Type], ...]
    body: Block
    line: int


@dataclass(frozen=True)
class Block:
    """Bindings in order, then the value."""

    bindings: tuple[tuple[str, Node], ...]
    result: Node


Node: TypeAlias = Constant | Meta | Variable | Global | TupleOf | Projection | Call | Function | Block


@dataclass(frozen=True)
class Program:
    """functions : by name without `@`. metadata : the text of the JSON behind them, or ""."""

    functions: dict[str, Function] = field(default_factory=dict)
    metadata: str = ""
