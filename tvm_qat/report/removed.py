"""Nodes of the source model of which nothing is left to run, and what became of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tvm_qat.ir import Call, Expr, IRModule, Var, bindings_of, op_name, operands, source_of
from tvm_qat.qnn.table import OPS

_HOW = {
    "pruned": "needed in training only",
    "batch_norm_folded": "folded into the weights",
    "cancelled": "changes no number",
}
_CONSTANT = "computed at compile time"
_GRID = "became a grid"
_JOINED = "joined its neighbours"


@dataclass(frozen=True)
class Removed:
    """name, op : of the node, as imported. how : what became of it. into : the row that it joined, if any."""

    name: str
    op: str
    how: str
    into: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def removed_nodes(
    source: IRModule, rows: Collection[str], notes: Sequence[Mapping[str, str]]
) -> tuple[Removed, ...]:
    """source : the module as imported. rows : names of the nodes that are left. notes : of the passes."""
    said = {note["node"]: _HOW[note["kind"]] for note in notes if note["kind"] in _HOW}
    origins = _Origins(source, rows)
    found: dict[str, Removed] = {}
    for binding in bindings_of(source["main"]):
        value, name = binding.value, source_of(binding.value)
        if name and name not in rows and isinstance(value, Call):
            into = origins.of(binding.var)
            grid = op_name(value) in OPS
            how = said.get(name) or (_CONSTANT if into is None else _GRID if grid else _JOINED)
            found[name] = Removed(name, op_name(value), how, into or "")
    return tuple(found.values())


class _Origins:
    """For each variable the nearest row, or input, that its value comes from; None for constants."""

    def __init__(self, source: IRModule, rows: Collection[str]) -> None:
        self._found: dict[Var, str | None] = dict.fromkeys(source["main"].params, "")
        for binding in bindings_of(source["main"]):
            name = source_of(binding.value)
            before = [self._found.get(var) for var in _variables(binding.value)]
            known = [origin for origin in before if origin is not None]
            nearest = next(filter(None, known), "") if known else None
            self._found[binding.var] = name if name in rows and nearest is not None else nearest

    def of(self, var: Var) -> str | None:
        return self._found.get(var)


def _variables(expr: Expr) -> Iterator[Var]:
    if isinstance(expr, Var):
        yield expr
    for child in operands(expr):
        yield from _variables(child)
