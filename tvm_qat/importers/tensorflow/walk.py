"""Which nodes the outputs need, in order; and a check of all of them before any is translated.

Only data is followed: what runs beside it (assertions, summaries, updates in training) and what
nothing reads (gradients, savers) is never looked at. A function that would change a variable is
refused, since the numbers then depend on when it ran.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import without_translation
from tvm_qat.importers.tensorflow.model import Graph, Model, base, by_name

_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_WRITES = ("Assign", "ResourceApply", "ResourceScatter", "Scatter")


def needed(graph: Graph, wanted: Collection[str]) -> list[Any]:
    """The nodes that `wanted` tensors depend on, each after its inputs."""
    order: list[Any] = []
    state: dict[str, bool] = {}  # False while the inputs of a node are visited
    stack = [(base(tensor), False) for tensor in reversed(list(wanted))]
    while stack:
        name, finished = stack.pop()
        if name in graph.arguments:
            continue
        if finished:
            state[name] = True
            order.append(graph.nodes[name])
            continue
        if name in state:
            if not state[name]:
                raise InputError(f"node {name!r} depends on its own result")
            continue
        if name not in graph.nodes:
            raise InputError(f"node {name!r} is read but is not in the graph")
        state[name] = False
        stack.append((name, True))
        sources = (base(tensor) for tensor in data_inputs(graph.nodes[name]))
        stack.extend((source, False) for source in sources if not state.get(source, False))
    return order


def data_inputs(node: Any) -> list[str]:
    return [name for name in node.input if not name.startswith("^")]


def called(node: Any, model: Model) -> str | None:
    """The function that a node calls."""
    if node.op in _CALLS:
        return str(node.attr["f"].func.name)
    return str(node.op) if node.op in model.functions else None


def body_of(name: str, caller: Any, prefix: str, model: Model) -> Graph:
    """The graph of a function, its nodes named after the layer that calls it."""
    function = model.functions.get(name)
    if function is None:
        raise InputError(f"function {name!r} is called but is not in the file")
    signature = function.signature
    arguments = tuple(argument.name for argument in signature.input_arg)
    missing = [result.name for result in signature.output_arg if result.name not in function.ret]
    if missing:
        raise InputError(f"function {name!r} has no value for its result {missing[0]!r}")
    results = tuple(function.ret[result.name] for result in signature.output_arg)
    outer, _, last = f"{prefix}{caller.name}".rpartition("/")
    layer = outer if last.rstrip("_0123456789") in _CALLS else f"{prefix}{caller.name}"
    return Graph(by_name(function.node_def, name), arguments, results, f"{layer}/" if layer else "")


def check_operators(model: Model, known: Collection[str]) -> None:
    """Raises UnsupportedError that lists every operator without a converter, in all functions."""
    missing: dict[str, list[str]] = {}
    for node, prefix in _everything(model):
        if node.op not in known and called(node, model) is None:
            missing.setdefault(node.op, []).append(prefix + node.name)
    if missing:
        raise without_translation(missing, model.file)


def _everything(model: Model) -> Iterator[tuple[Any, str]]:
    """(node, prefix) of all that is needed, every function once."""
    seen: set[str] = set()
    graphs = [(model.graph, tuple(model.outputs.values()))]
    while graphs:
        graph, wanted = graphs.pop()
        for node in needed(graph, wanted):
            yield node, graph.prefix
            name = called(node, model)
            if name is not None and name not in seen:
                seen.add(name)
                body = body_of(name, node, graph.prefix, model)
                _check_reads_only(body, model)
                graphs.append((body, body.results))


def _check_reads_only(body: Graph, model: Model) -> None:
    for node in body.nodes.values():
        if node.op.startswith(_WRITES):
            reason = "it changes a variable while it runs, so this is a training graph"
            place = f"'{body.prefix}{node.name}' ({node.op})"
            remedy = "export for inference (training=False)"
            raise UnsupportedError(located(reason, file=model.file, node=place, remedy=remedy))
