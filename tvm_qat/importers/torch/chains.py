"""Which calls write fake quantization out: they are kept even where torch could compute them.

What depends on weights alone is computed at import, but a weight's chain, div -> round -> clamp -> mul,
says what the passes must know: its scale and its range.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch._ops import OpOverload
from torch.fx import Node as Call

from tvm_qat.importers.torch.schema import operator_name

_SCALED = ("aten.div", "aten.mul")
_ROUNDED = ("aten.ceil", "aten.floor", "aten.round")
_BETWEEN = (
    "aten.add", "aten.sub", "aten.clamp", "aten.clamp_max", "aten.clamp_min", "aten.maximum",
    "aten.minimum",
)  # fmt: skip


def written_out(graph: Any) -> frozenset[Call]:
    """The calls from a division to the multiplication after a rounding."""
    found: set[Call] = set()
    for call in graph.nodes:
        if _name(call) in _ROUNDED:
            before, after = _reach(call, _made_by), _reach(call, _read_by)
            if before and after:
                found.update(before, after, (call,))
    return frozenset(found)


def _name(call: Call) -> str:
    return operator_name(call.target._schema) if isinstance(call.target, OpOverload) else ""


def _made_by(call: Call) -> Sequence[Call]:
    return [node for node in call.all_input_nodes if node.op == "call_function"]


def _read_by(call: Call) -> Sequence[Call]:
    return list(call.users) if len(call.users) == 1 else []


def _reach(call: Call, links: Callable[[Call], Sequence[Call]]) -> list[Call]:
    """The calls up to and with the next scaling, or none if something else comes first."""
    path: list[Call] = []
    while True:
        following = links(call)
        if not following or _name(following[0]) not in (*_BETWEEN, *_ROUNDED, *_SCALED):
            return []
        call = following[0]
        path.append(call)
        if _name(call) in _SCALED:
            return path
