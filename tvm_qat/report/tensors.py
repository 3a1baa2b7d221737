"""What each node reads, holds and writes, and how many bytes of it lie in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, TensorType, TupleType, Var, is_const, source_of
from tvm_qat.qparams import QParams
from tvm_qat.report.flat import Flat, FlatCall
from tvm_qat.report.grids import Grids


@dataclass(frozen=True)
class Tensor:
    """source : the node that made it, the model's input, or the constant's own name ("" if nameless).

    qparams : what its integers mean; None for floats, and where nothing says it.
    """

    source: str
    dtype: str
    shape: tuple[int | str, ...]
    qparams: QParams | None = None

    @property
    def bytes(self) -> int:
        """A dimension that is not known at compile time counts as one."""
        return _size(self.shape) * np.dtype(self.dtype).itemsize

    def to_json(self) -> dict[str, Any]:
        params = self.qparams.to_json() if self.qparams else None
        return {"source": self.source, "dtype": self.dtype, "shape": list(self.shape), "qparams": params}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Tensor:
        params = QParams(**data["qparams"]) if data["qparams"] is not None else None
        return cls(data["source"], data["dtype"], tuple(data["shape"]), params)


@dataclass
class Edges:
    """Tensors by the node that touches them, in order; each once.

    read : results of other nodes and inputs of the model. held : constants. written : what others read.
    moved : bytes of activations that kernels exchange with memory, by node and dtype.
    """

    read: dict[str, list[Tensor]] = field(default_factory=dict)
    held: dict[str, list[Tensor]] = field(default_factory=dict)
    written: dict[str, list[Tensor]] = field(default_factory=dict)
    moved: dict[str, dict[str, int]] = field(default_factory=dict)


def edges_of(flat: Flat, names: Mapping[FlatCall, str], grids: Grids, views: frozenset[FlatCall]) -> Edges:
    """names : the row that each call belongs to. views : calls for which nothing runs."""
    return _Walk(flat, names, grids, views).edges()


@dataclass(frozen=True)
class _Walk:
    flat: Flat
    names: Mapping[FlatCall, str]
    grids: Grids
    views: frozenset[FlatCall]

    def edges(self) -> Edges:
        makers = {var: call for call in self.flat.calls for var in call.results}
        readers: dict[Var, list[FlatCall]] = {}
        for call in self.flat.calls:
            for var in call.variables:
                readers.setdefault(var, []).append(call)
        edges, seen = Edges(), set()
        for call in self.flat.calls:
            name = self.names[call]
            for tensor in call.data:
                maker = makers.get(tensor) if isinstance(tensor, Var) else None
                if (name, tensor) in seen or (maker is not None and self.names[maker] == name):
                    continue
                seen.add((name, tensor))
                kind = edges.held if is_const(tensor) else edges.read
                kind.setdefault(name, []).extend(self.tensors(tensor, maker))
            self.add_moved(edges, call, makers)
            users = [user for var in call.results for user in readers.get(var, ())]
            leaves = any(var.same_as(output) for var in call.results for output in self.flat.outputs)
            if leaves or any(self.names[user] != name for user in users):
                edges.written.setdefault(name, []).extend(self.tensors(call.var, call))
            if call not in self.views and (leaves or any(user.place != call.place for user in users)):
                self.add_bytes(edges, call, call.var)
        return edges

    def add_moved(self, edges: Edges, call: FlatCall, makers: Mapping[Var, FlatCall]) -> None:
        if call in self.views:
            return
        for var in dict.fromkeys(call.variables):
            if var not in makers or makers[var].place != call.place:
                self.add_bytes(edges, call, var)

    def add_bytes(self, edges: Edges, call: FlatCall, var: Var) -> None:
        counts = edges.moved.setdefault(self.names[call], {})
        for tensor in self.tensors(var, None):
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.bytes

    def tensors(self, expr: Expr, maker: FlatCall | None) -> Iterator[Tensor]:
        """Several where a call's result is a tuple."""
        source = self.names[maker] if maker is not None else self.flat.inputs.get(expr, source_of(expr) or "")
        for ty in _types(expr):
            yield Tensor(source, str(ty.dtype), self.flat.shape(ty), self.grids.get(expr))


def _types(expr: Expr) -> Sequence[Any]:
    types = list(expr.ty.fields) if isinstance(expr.ty, TupleType) else [expr.ty]
    return [ty for ty in types if isinstance(ty, TensorType) and str(ty.dtype)]


def _size(shape: Sequence[int | str]) -> int:
    return prod(size for size in shape if isinstance(size, int))
