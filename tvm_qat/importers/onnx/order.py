"""The graph's wiring: every value has one producer, every producer stands before its readers."""

from __future__ import annotations

from collections import Counter, deque

from onnx import GraphProto, NodeProto

from tvm_qat.errors import InputError, located
from tvm_qat.importers.onnx.load import Model, node_label


def sorted_nodes(model: Model) -> list[NodeProto]:
    """The nodes in an order in which every input is known; nodes already in order keep it.

    Raises InputError for a value produced twice, a value nobody produces, and a cycle.
    """
    graph = model.proto.graph
    producer = _producers(model)
    _check_known(model, producer)
    sources = [{producer[name] for name in node.input if name in producer} for node in graph.node]
    if all(max(known, default=-1) < index for index, known in enumerate(sources)):
        return list(graph.node)
    order = _topological(sources)
    if len(order) < len(sources):
        stuck = graph.node[min(set(range(len(sources))) - set(order))]
        raise InputError(_message(model, "the graph has a cycle through this node", stuck, "export it again"))
    return [graph.node[i] for i in order]


def _topological(sources: list[set[int]]) -> list[int]:
    """Indices, each after its sources; those on or behind a cycle are left out."""
    readers: dict[int, list[int]] = {}
    for index, known in enumerate(sources):
        for source in known:
            readers.setdefault(source, []).append(index)
    waiting = [len(known) for known in sources]
    ready = deque(i for i, count in enumerate(waiting) if count == 0)
    order = []
    while ready:
        order.append(ready.popleft())
        for reader in readers.get(order[-1], []):
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    return order


def _producers(model: Model) -> dict[str, int]:
    """Value name -> index of its node, absent for inputs and initializers."""
    graph = model.proto.graph
    given = _given(graph)
    for kind, values in (("input", graph.input), ("initializer", graph.initializer)):
        _check_distinct(model, kind, [value.name for value in values])
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in filter(None, node.output):
            if name in producer or name in given:
                raise InputError(
                    _message(model, f"value {name!r} is defined twice", node, "rename one of them")
                )
            producer[name] = index
    return producer


def _check_distinct(model: Model, kind: str, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(located(f"{kind} {twice[0]!r} is defined twice", file=model.file))


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
    _check_distinct(model, "output", names)


def _message(model: Model, reason: str, node: NodeProto, remedy: str) -> str:
    return located(reason, file=model.file, node=node_label(node), remedy=remedy)
