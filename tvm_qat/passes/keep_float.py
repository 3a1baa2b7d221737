"""Marks the nodes that a caller wants to have in float; the passes that fold leave them alone.

    keep_float=["head/*"]         head/conv, head/add: dequantize -> float operators -> quantize
    only_int8=["Conv", "Gemm"]    every other operator, but for those that only move elements

What training put around a node stays: its inputs are dequantized, its result is quantized, so that it
computes on the numbers that training saw. Where there is nothing around it, its neighbours are float.

Kept on purpose: quantize and dequantize themselves; a batch norm under `only_int8`, because it becomes
part of the weights before it.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from tvm_qat.errors import InputError, located
from tvm_qat.ir import IRModule, bindings_of, notes_of, op_name, source_of
from tvm_qat.marks import keep, node_kinds, requests_of
from tvm_qat.passes.fold import movement

BY_REQUEST = "by-request"
"""Code of the note on a node that was kept."""

ONLY = "only_int8"
"""Stands for what the caller wrote, where nodes are kept because of others."""

_FOLLOWS = frozenset([*movement.RULES, "relax.nn.batch_norm"])
"""Operators without arithmetic of their own: under `only_int8` they take what they are given."""


def keep_float(mod: IRModule, nodes: Sequence[str] = (), only_int8: Sequence[str] = ()) -> IRModule:
    """An imported module with marks.

    nodes : names or patterns (fnmatch). only_int8 : kinds of operators, as the model's format calls
    them (as Relax does, without prefix, where the module came from elsewhere).
    Raises InputError where one of them matches nothing, with the closest names.
    """
    operators = operators_of(mod)
    requests = {wish: _matching(wish, mod, operators) for wish in nodes}
    if only_int8:
        kinds = {node: _kind(node, names, node_kinds(mod)) for node, names in operators.items()}
        _check_kinds(only_int8, set(kinds.values()))
        others = (node for node, kind in kinds.items() if kind not in only_int8)
        requests[ONLY] = [node for node in others if not _FOLLOWS.issuperset(operators[node])]
    return keep(mod, requests) if requests else mod


def check_kept(mod: IRModule) -> None:
    """Raises InputError if the caller named a node that could not be kept, of a module after folding."""
    kept = {note["node"] for note in notes_of(mod) if note.get("code") == BY_REQUEST}
    for wish, nodes in requests_of(mod).items():
        if wish != ONLY and kept.isdisjoint(nodes):
            reason = f"keep_float {wish!r}: {nodes[0]} computes nothing that could be done in float"
            remedy = (
                "name a node that computes; quantization, training remnants and integers stay what they are"
            )
            raise InputError(located(reason, remedy=remedy))


def operators_of(mod: IRModule) -> dict[str, list[str]]:
    """Relax operators by node, of `main`, without those of the dialect."""
    found: dict[str, list[str]] = {}
    for binding in bindings_of(mod["main"]):
        node, name = source_of(binding.value), op_name(binding.value)
        if node and name.startswith("relax."):
            found.setdefault(node, []).append(name)
    return found


def _matching(wish: str, mod: IRModule, operators: Mapping[str, Sequence[str]]) -> list[str]:
    found = [wish] if wish in operators else [node for node in operators if fnmatchcase(node, wish)]
    if not found:
        close = difflib.get_close_matches(wish, operators, n=3) or list(operators)[:5]
        others = filter(None, (source_of(binding.value) for binding in bindings_of(mod["main"])))
        exists = any(wish == node or fnmatchcase(node, wish) for node in others)
        reason = f"{wish!r} only changes a grid" if exists else f"no node is called {wish!r}"
        raise InputError(located(f"keep_float: {reason}", remedy=f"did you mean {', '.join(close)}?"))
    return found


def _kind(node: str, names: Sequence[str], kinds: Mapping[str, str]) -> str:
    return kinds.get(node) or names[0].removeprefix("relax.").removeprefix("nn.")


def _check_kinds(wanted: Sequence[str], known: set[str]) -> None:
    for kind in wanted:
        if kind not in known:
            close = difflib.get_close_matches(kind, sorted(known), n=3) or sorted(known)
            raise InputError(
                located(f"the model has no operator {kind!r}", remedy=f"did you mean {', '.join(close)}?")
            )
