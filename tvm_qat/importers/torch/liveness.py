"""Which calls of a graph matter, and which tensors share memory."""

from __future__ import annotations

from typing import Any

from torch._ops import OpOverload
from torch.fx import Node as Call

from tvm_qat.importers.torch.schema import is_in_place, is_view


def live_calls(graph: Any) -> frozenset[Call]:
    """The calls on which the outputs depend, in-place ones included.

    Counting batches and updating statistics is not live; a check is, but costs nothing.
    """
    live: set[Call] = set()
    memory: set[Call] = set()
    for call in reversed(graph.nodes):
        writes = _in_place(call) and _base(call) in memory
        if call.op == "output" or call in live or writes:
            live.update((call, *call.all_input_nodes))
            memory.update(map(_base, call.all_input_nodes))
    return frozenset(live)


def _in_place(call: Call) -> bool:
    return isinstance(call.target, OpOverload) and is_in_place(call.target._schema)


def written_views(graph: Any, write: Call) -> list[Call]:
    """Calls whose tensors share memory with what `write` changes and that are read afterwards.

    The tensor itself is not counted, nor are earlier in-place calls on it: they are the same tensor.
    """
    order = {call: position for position, call in enumerate(graph.nodes)}
    base = _base(write.args[0])
    return [
        call
        for call in graph.nodes
        if _same_tensor(call) is not _same_tensor(write)
        and _base(call) is base
        and order[call] < order[write]
        and any(order[user] > order[write] for user in call.users)
    ]


def _same_tensor(call: Any) -> Any:
    """The call that made the very tensor that `call` returns."""
    while _in_place(call):
        call = call.args[0]
    return call


def _base(call: Any) -> Any:
    """The call that made the memory in which `call`'s tensor lies."""
    while isinstance(call.target, OpOverload) and call.args:
        schema = call.target._schema
        if not (is_in_place(schema) or is_view(schema)) or not isinstance(call.args[0], Call):
            return call
        call = call.args[0]
    return call
