"""Small modules for tests of the passes, written as Python functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    IRModule,
    TensorType,
    Tuple,
    Var,
    attrs_of,
    bindings_of,
    const,
    define,
    is_graph,
    op_name,
    relax,
    source_of,
    tvm,
    with_source,
)
from tvm_qat.qnn import build as qnn
from tvm_qat.qparams import QParams

Shape = tuple[Any, ...]


def grid(
    scale: Any = 2.0**-5, zero_point: Any = 0, dtype: str = "int8", axis: int | None = None, **rest: Any
) -> QParams:
    """QParams of plain numbers and lists. The default scale makes simulated arithmetic exact."""
    return QParams(np.asarray(scale), np.asarray(zero_point), dtype, axis, **rest)


class Graph:
    """Emits bindings; calling it binds an expression under a source node's name.

    named : give every binding without a name one of its own: n0, n1, ...
    """

    def __init__(self, builder: BlockBuilder, named: bool = False) -> None:
        self.builder, self.named, self.count = builder, named, 0

    def __call__(self, expr: Expr, source: str | None = None) -> Expr:
        if self.named and source is None:
            source = f"n{self.count}"
            self.count += 1
        return self.builder.emit(with_source(expr, source))

    def quantize(self, x: Expr, params: QParams, source: str | None = None) -> Expr:
        return self(qnn.quantize(x, params), source)

    def dequantize(self, q: Expr, params: QParams, source: str | None = None, dtype: str = "float32") -> Expr:
        return self(qnn.dequantize(q, params, dtype), source)

    def fake(self, x: Expr, params: QParams, source: str | None = None, dtype: str = "float32") -> Expr:
        """quantize and dequantize: what training simulated."""
        return self.dequantize(self.quantize(x, params, source), params, source, dtype)

    def weight(self, shape: Shape, params: QParams, seed: int = 0, low: int = -127) -> Expr:
        """A dequantized constant of random integers."""
        high = 128 if params.dtype == "int8" else 256
        low = max(low, 0) if params.dtype == "uint8" else low
        values = np.random.default_rng(seed).integers(low, high, shape).astype(params.dtype)
        return self.dequantize(const(values), params)


def graph(body: Callable[..., Any], *, named: bool = False, **inputs: tuple[Shape, str]) -> IRModule:
    """A module whose main is `body(graph, *parameters)`; a str in a shape is a symbolic dimension.

    The parameters are called as the keywords are; a tuple that `body` returns is main's result.
    """
    dims: dict[str, Any] = {}
    params = [Var(name, TensorType(_shape(shape, dims), dtype)) for name, (shape, dtype) in inputs.items()]
    builder = BlockBuilder()

    def emitted() -> Expr:
        made = body(Graph(builder, named), *params)
        return builder.emit_output(Tuple(list(made)) if isinstance(made, tuple) else made)

    define(builder, "main", params, emitted, attrs={"input_names": list(inputs)})
    return builder.get()


def _shape(shape: Shape, dims: dict[str, Any]) -> list[Any]:
    return [dims.setdefault(d, tvm.tirx.Var(d, "int64")) if isinstance(d, str) else d for d in shape]


def calls_of(mod: IRModule) -> list[Call]:
    """The operator calls of main in order, those inside composite functions included."""
    found: list[Call] = []
    for binding in bindings_of(mod["main"]):
        found += _calls_in(mod, binding.value)
    return found


def _calls_in(mod: IRModule, value: Expr) -> list[Call]:
    if not isinstance(value, Call):
        return []
    if isinstance(value.op, tvm.ir.GlobalVar) and not is_graph(mod[value.op]):
        return [c for b in bindings_of(mod[value.op]) for c in _calls_in(mod, b.value)]
    return [value]


def names_of(mod: IRModule) -> list[str]:
    """The operator of every call, without `relax.` and `nn.`."""
    return [op_name(c).removeprefix("relax.").removeprefix("nn.") for c in calls_of(mod)]


def float_ops(mod: IRModule) -> list[str]:
    """Operators that compute in float, boundary operators of the dialect left out."""
    return [
        name
        for name, call in zip(names_of(mod), calls_of(mod), strict=True)
        if not name.startswith("qnn.") and str(getattr(call.ty, "dtype", "")).startswith("float")
    ]


def call_named(mod: IRModule, name: str) -> dict[str, Any]:
    """The attributes of the one call of operator `name` in main."""
    found = [c for c in calls_of(mod) if op_name(c) == name]
    assert len(found) == 1, f"{len(found)} calls of {name}"
    return attrs_of(found[0])


def sources_of(mod: IRModule) -> dict[str, str | None]:
    """operator -> source node's name, for every call of main and of its composites."""
    return {op_name(call): source_of(call) for call in calls_of(mod)}


__all__ = ["Graph", "call_named", "calls_of", "float_ops", "graph", "grid", "names_of", "relax", "sources_of"]
