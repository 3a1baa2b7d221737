"""Variables of streaming models: extra inputs and outputs of `main`, under the variable's name.

VAR_HANDLE names a variable, READ_VARIABLE and ASSIGN_VARIABLE read and write it, and CALL_ONCE
runs a graph that writes the values it begins with. A compiled model keeps nothing between two
runs: it takes what each variable holds and returns what it holds afterwards. Where all elements
begin alike, which is what converters write, an input that the caller leaves out is filled so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import tflite

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tflite.model import Graph, Model, Operator, Tensor

KINDS = ("CALL_ONCE", "VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE")


@dataclass(frozen=True)
class Variable:
    """tensor : what is read from it or written to it. initial : of each element; None if not alike."""

    tensor: Tensor
    initial: int | float | None


def handles_of(graph: Graph) -> dict[int, str]:
    """The name of the variable that each handle, a tensor, stands for."""
    found = {}
    for operator in graph.operators:
        if operator.kind == "VAR_HANDLE" and operator.outputs:
            kind, table = operator.options
            if kind != tflite.BuiltinOptions.VarHandleOptions:
                raise InputError(f"variable {operator.name!r} has no name")
            options = tflite.VarHandleOptions()
            options.Init(table.Bytes, table.Pos)
            parts = [part.decode() for part in (options.Container(), options.SharedName()) if part]
            found[operator.outputs[0]] = "/".join(parts) or operator.name
    return found


def variables_of(model: Model, graph: Graph) -> dict[str, Variable]:
    """All variables that `graph` reads or writes, in the order in which it does so first."""
    try:
        begins = dict(_begins(model, graph))
        found: dict[str, Variable] = {}
        for name, index in _accesses(graph):
            if name in found or index < 0:
                continue
            tensor = graph.tensors[index]
            begin = begins.get(name)
            if begin is not None and (begin.shape, begin.dtype) != (tensor.shape, tensor.dtype):
                raise InputError(f"variable {name!r} begins with another shape or type than it has later")
            found[name] = Variable(tensor, None if begin is None else _alike(begin))
        return found
    except InputError as error:
        raise type(error)(located(str(error), file=model.file)) from None


def variable_at(operator: Operator, handles: Mapping[int, str]) -> str:
    name = handles.get(operator.inputs[0]) if operator.inputs else None
    if name is None:
        raise InputError("its first input is no variable")
    return name


def _accesses(graph: Graph) -> Iterator[tuple[str, int]]:
    """(variable, tensor read or written) in the order of the operators."""
    handles = handles_of(graph)
    for operator in graph.operators:
        tensors = {"READ_VARIABLE": operator.outputs, "ASSIGN_VARIABLE": operator.inputs[1:]}
        for index in tensors.get(operator.kind, ()):
            yield variable_at(operator, handles), index


def _begins(model: Model, graph: Graph) -> Iterator[tuple[str, Tensor]]:
    """The constants that the graphs named by CALL_ONCE write."""
    for operator in graph.operators:
        if operator.kind != "CALL_ONCE":
            continue
        kind, table = operator.options
        options = tflite.CallOnceOptions()
        if kind != tflite.BuiltinOptions.CallOnceOptions:
            raise InputError("CALL_ONCE names no graph")
        options.Init(table.Bytes, table.Pos)
        if options.InitSubgraphIndex() >= len(model.graphs):
            raise InputError("CALL_ONCE names a graph that is not there")
        called = model.graphs[options.InitSubgraphIndex()]
        others = sorted({o.kind for o in called.operators} - {"VAR_HANDLE", "ASSIGN_VARIABLE"})
        if others:
            raise UnsupportedError(f"the graph that sets variables computes them: {', '.join(others)}")
        for name, index in _accesses(called):
            if index < 0 or called.tensors[index].data is None:
                raise UnsupportedError(f"variable {name!r} begins with a value that is computed")
            yield name, called.tensors[index]


def _alike(tensor: Tensor) -> int | float | None:
    """The one value of all elements; None if they differ."""
    assert tensor.data is not None
    first = tensor.data.reshape(-1)[:1]
    if not first.size or not np.all(tensor.data == first):
        return None
    value = first[0].item()
    return value if isinstance(value, float) else int(value)
