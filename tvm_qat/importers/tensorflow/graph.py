"""Node by node: operands looked up, function calls translated in place, constants folded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.tensorflow.fold import FOLDS, folded
from tvm_qat.importers.tensorflow.inputs import parameters
from tvm_qat.importers.tensorflow.model import MOST_ELEMENTS, Graph, Model, array, base
from tvm_qat.importers.tensorflow.node import Handle, Node, Value, as_tensor
from tvm_qat.importers.tensorflow.table import CONVERTERS, OUTPUTS
from tvm_qat.importers.tensorflow.walk import body_of, called, check_operators, data_inputs, needed
from tvm_qat.importers.writer import Writer, write_main
from tvm_qat.ir import Expr, IRModule, Tuple, TupleGetItem, TupleType, Var, shape_of

_HOLDERS = ("VarHandleOp", "VariableV2", "Variable")
_READS = ("ReadVariableOp", "Identity")
_SOURCES = ("Const", "Placeholder", "PlaceholderWithDefault", "ReadVariableOp", *_HOLDERS)
_DEEPEST, _MOST_NODES = 64, 1_000_000


def translate(model: Model, input_shapes: Mapping[str, Sequence[int]]) -> IRModule:
    """The model as a module with one function `main`."""
    try:
        check_operators(model, {*CONVERTERS, *FOLDS, *_SOURCES})
        params = parameters(model, input_shapes)
    except InputError as error:
        said = str(error)
        raise type(error)(said if said.startswith(model.file) else located(said, file=model.file)) from None
    return write_main(params, lambda write: _Walk(model, params, write).outputs(), model.file)


class _Walk:
    def __init__(self, model: Model, params: Mapping[str, Var], write: Writer) -> None:
        self._model, self._write = model, write
        self._given = {base(tensor): params[name] for name, tensor in model.inputs.items()}
        self._count = 0

    def outputs(self) -> dict[str, Expr]:
        values = self._run(self._model.graph, {}, list(self._model.outputs.values()), 0)
        outputs = {}
        for name, value in zip(self._model.outputs, values, strict=True):
            with self._write.node(name, "output"):
                outputs[name] = as_tensor(value)
        return outputs

    def _run(
        self, graph: Graph, arguments: Mapping[str, Value], wanted: Sequence[str], depth: int
    ) -> list[Value]:
        """The values of `wanted` tensors of a graph."""
        values: dict[str, list[Value]] = {name: [value] for name, value in arguments.items()}
        for node in needed(graph, wanted):
            self._count += 1
            if self._count > _MOST_NODES:
                raise InputError(located("it has too many nodes", file=self._model.file))
            name = called(node, self._model)
            if name is None:
                with self._write.node(graph.prefix + node.name, node.op):
                    values[node.name] = self._results(graph, node, values, depth)
            else:
                values[node.name] = self._call(graph, name, node, values, depth)
        return [_pick(graph, tensor, values) for tensor in wanted]

    def _call(
        self, graph: Graph, name: str, node: Any, values: dict[str, list[Value]], depth: int
    ) -> list[Value]:
        if depth >= _DEEPEST:
            reason = f"function {name!r} calls itself, or calls are nested too deep"
            raise InputError(located(reason, file=self._model.file))
        body = body_of(name, node, graph.prefix, self._model)
        given = [_pick(graph, tensor, values) for tensor in data_inputs(node)]
        if len(given) != len(body.arguments):
            reason = f"function {name!r} has {len(body.arguments)} arguments but is given {len(given)}"
            raise InputError(located(reason, file=self._model.file))
        return self._run(body, dict(zip(body.arguments, given, strict=True)), body.results, depth + 1)

    def _results(self, graph: Graph, node: Any, values: dict[str, list[Value]], depth: int) -> list[Value]:
        if node.op in _SOURCES and (node.op != "ReadVariableOp"):
            return [self._source(graph, node, values, depth)]
        inputs = tuple(_pick(graph, tensor, values) for tensor in data_inputs(node))
        if node.op in _READS and inputs and isinstance(inputs[0], Handle):
            # Variables of TensorFlow 1 are read by an Identity; a resource is only passed on by one.
            kind = node.attr["T"].type if "T" in node.attr else 0
            return [inputs[0] if kind == _RESOURCE else self._model.variable(inputs[0].node)]
        seen = Node(graph.prefix + node.name, node.op, inputs, dict(node.attr), self._write)
        if node.op in FOLDS and all(isinstance(value, np.ndarray) for value in inputs):
            return folded(seen)
        return _converted(seen)

    def _source(self, graph: Graph, node: Any, values: dict[str, list[Value]], depth: int) -> Value:
        if depth == 0 and node.name in self._given:
            return self._given[node.name]
        if node.op == "Const":
            return array(node.attr["value"].tensor)
        if node.op in _HOLDERS:
            return Handle(node.name)
        if node.op == "PlaceholderWithDefault":
            return _pick(graph, data_inputs(node)[0], values)
        if depth == 0 and node.attr["dtype"].type == _RESOURCE:
            return Handle(node.name)
        if depth == 0:
            return self._model.variable(node.name)
        raise InputError("a placeholder inside a function")


_RESOURCE = 20
"""DT_RESOURCE of TensorFlow's types.proto."""


def _pick(graph: Graph, tensor: str, values: Mapping[str, list[Value]]) -> Value:
    """`node`, `node:1`, and inside functions `argument` or `node:output:1`."""
    name, _, rest = tensor.partition(":")
    output, _, last = rest.rpartition(":")
    index = int(last) if last.isdigit() else 0
    node = graph.nodes.get(name)
    if output and node is not None:
        names = OUTPUTS.get(node.op, ())
        index = names.index(output) if output in names else index
    found = values[name]
    if index >= len(found):
        raise UnsupportedError(f"output {index} of node {name!r} has no translation")
    return found[index]


def _converted(node: Node) -> list[Value]:
    """What the node's converter makes of it; type rules of TVM raise what is caught here."""
    if node.op not in CONVERTERS:
        raise UnsupportedError("it is only supported on what is known at import")
    try:
        made = CONVERTERS[node.op](node)
        parts = [
            part for value in (made if isinstance(made, list) else [made]) for part in _bound(node, value)
        ]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(f"its operands do not fit: {lines[-1] if lines else type(error).__name__}") from None
    for part in parts:
        _check_shape(part)
    return parts


def _bound(node: Node, value: Value) -> list[Value]:
    if isinstance(value, np.ndarray) or not hasattr(value, "ty"):
        return [value]
    if isinstance(value, Tuple):
        return [node.write(part) for part in value.fields]
    var = node.write(value)
    if isinstance(var.ty, TupleType):
        return [node.write(TupleGetItem(var, i)) for i in range(len(var.ty.fields))]
    return [var]


def _check_shape(value: Value) -> None:
    if not isinstance(value, Var):
        return
    shape = shape_of(value)
    if shape is None:
        raise UnsupportedError("its result has a shape that is computed at run time")
    sizes = [size for size in shape if isinstance(size, int)]
    if min(sizes, default=1) < 1 or math.prod(sizes) > MOST_ELEMENTS:
        raise InputError(f"its result would have the shape {list(shape)}")
