"""The graph's wiring: every value has one producer, every producer stands before its readers."""

from __future__ import annotations

from collections import deque

from onnx import GraphProto, NodeProto

from tvm_qat.errors import InputError, located
from tvm_qat.importers.onnx.load import Model


def sorted_nodes(model: Model) -> list[NodeProto]:
    """The nodes in an order in which every input is known; nodes already in order keep it.

    Raises InputError for a value produced twice, a value nobody produces, and a cycle.
    """
    graph = model.proto.graph
    producer = _producers(model)
    _check_known(model, producer)
    readers: dict[int, list[int]] = {}
    waiting = []
    for index, node in enumerate(graph.node):
        sources = {producer[name] for name in node.input if producer.get(name) is not None}
        waiting.append(len(sources))
        for source in sources:
            readers.setdefault(source, []).append(index)
    if all(
        producer.get(name) is None or producer[name] < i for i, n in enumerate(graph.node) for name in n.input
    ):
        return list(graph.node)
    ready = deque(i for i, count in enumerate(waiting) if count == 0)
    order = []
    while ready:
        index = ready.popleft()
        order.append(index)
        for reader in readers.get(index, []):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    if len(order) < len(graph.node):
        stuck = next(node for i, node in enumerate(graph.node) if waiting[i])
        raise InputError(_message(model, "the graph has a cycle through this node", stuck, "export it again"))
    return [graph.node[i] for i in order]


def _producers(model: Model) -> dict[str, int]:
    """Value name -> index of its node, absent for inputs and initializers."""
    graph = model.proto.graph
    given = _given(graph)
    for kind, values in (("input", graph.input), ("initializer", graph.initializer)):
        names = [value.name for value in values]
        twice = (
            next((name for i, name in enumerate(names) if name in names[:i]), None)
            if _repeats(names)
            else None
        )
        if twice is not None:
            raise InputError(located(f"{kind} {twice!r} is defined twice", file=model.file))
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in given:
                reason = f"value {name!r} is defined twice"
                raise InputError(_message(model, reason, node, "rename one of them"))
            producer[name] = index
    return producer


def _repeats(names: list[str]) -> bool:
    return len(set(names)) < len(names)


def _given(graph: GraphProto) -> set[str]:
    return {value.name for value in (*graph.input, *graph.initializer)}


def _check_known(model: Model, producer: dict[str, int]) -> None:
    graph = model.proto.graph
    given = _given(graph)
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in given and name not in producer:
                reason = f"input {name!r} is produced by no node"
                raise InputError(_message(model, reason, node, "export the model again"))
    names = [output.name for output in graph.output]
    for name in names:
        if name not in given and name not in producer:
            raise InputError(located(f"output {name!r} is produced by no node", file=model.file))
    if _repeats(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(located(f"output {twice!r} is listed twice", file=model.file))


def _message(model: Model, reason: str, node: NodeProto, remedy: str) -> str:
    label = f"'{node.name or (node.output[0] if node.output else '')}' ({node.op_type})"
    return located(reason, file=model.file, node=label, remedy=remedy)
