"""The nodes of the model as it was imported, and who reads whose result.

    x -> quantize -> dequantize -> conv -> relu -> quantize -> dequantize -> softmax
    x -> conv -> relu -> softmax

Nodes that only quantize or dequantize are left out unless a layer bears their name: a model has two
or three of them for each operator, and passes have cancelled or absorbed them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tvm_qat.ir import (
    Call,
    Expr,
    Function,
    IRModule,
    TupleGetItem,
    Var,
    bindings_of,
    op_name,
    operands,
    source_of,
)

_QUANTIZING = frozenset(
    ["qnn.quantize", "qnn.dequantize", "qnn.fake_quantize", "qnn.fake_quantize_range", "relax.quantize"]
)


@dataclass(frozen=True)
class Node:
    """kind : "input", "operator" or "output". op : the operators of an operator node, joined by commas."""

    name: str
    kind: str
    op: str = ""


@dataclass(frozen=True)
class Graph:
    """edges : (from, to), places in `nodes`, which stand in execution order.

    order : the names of all operator nodes, also of those left out, in execution order.
    weights : for the node of each quantizer of a constant, the nodes that read it.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[int, int], ...]
    order: tuple[str, ...]
    weights: dict[str, tuple[str, ...]]


_Key = tuple[str, str]
"""(kind, name): inputs, operators and outputs may share names."""


def graph_of(mod: IRModule, kept: Collection[str]) -> Graph:
    """The graph of main. kept : names of nodes that stay even if they only quantize."""
    walk = _Walk(mod["main"])
    dropped = {
        key for key, ops in walk.ops.items() if ops and _QUANTIZING.issuperset(ops) and key[1] not in kept
    }
    shown = [key for key in walk.ops if key not in dropped]
    place = {key: number for number, key in enumerate(shown)}
    edges = {
        (place[maker], place[key])
        for key in shown
        for read in walk.reads.get(key, ())
        for maker in _behind(read, walk.reads, dropped)
    }
    nodes = tuple(Node(name, kind, ", ".join(walk.ops[kind, name])) for kind, name in shown)
    weights = {name: tuple(dict.fromkeys(readers)) for name, readers in walk.weights.items()}
    order = tuple(name for kind, name in walk.ops if kind == "operator")
    return Graph(nodes, tuple(sorted((a, b) for a, b in edges if a != b)), order, weights)


class _Walk:
    """ops : operators of each node that depends on an input, in order. reads : the nodes it reads."""

    def __init__(self, func: Function) -> None:
        self.ops: dict[_Key, dict[str, None]] = {}
        self.reads: dict[_Key, dict[_Key, None]] = {}
        self.weights: dict[str, list[str]] = {}
        self._owners: dict[Var, tuple[_Key, ...]] = {}
        self._constant: dict[Var, tuple[str, ...]] = {}
        for param, name in zip(func.params, _names(func, "input_names", len(func.params)), strict=True):
            self._owners[param] = (("input", name),)
            self.ops["input", name] = {}
        for binding in bindings_of(func):
            self._bind(binding.var, binding.value)
        results = self._behind(func.body.body)
        for name, maker in zip(_names(func, "output_names", len(results)), results, strict=False):
            self.ops["output", name] = {}
            self.reads["output", name] = {maker: None}

    def _bind(self, var: Var, value: Expr) -> None:
        live = self._behind(value)
        constant = [name for operand in _variables(value) for name in self._constant.get(operand, ())]
        source = source_of(value)
        if not live:
            self._constant[var] = tuple(dict.fromkeys([*constant, *([source] if source else [])]))
        elif not isinstance(value, Call):
            self._owners[var] = live
        else:
            owner = ("operator", source or var.name)
            self._owners[var] = (owner,)
            self.ops.setdefault(owner, {})[op_name(value)] = None
            self.reads.setdefault(owner, {}).update(dict.fromkeys(live))
            for name in constant:
                self.weights.setdefault(name, []).append(owner[1])

    def _behind(self, expr: Expr) -> tuple[_Key, ...]:
        """The nodes whose results an expression reads, each as often as it does."""
        if isinstance(expr, Var):
            return self._owners.get(expr, ())
        if isinstance(expr, TupleGetItem):
            parts = self._behind(expr.tuple_value)
            return (parts[expr.index],) if len(parts) > 1 else parts
        return tuple(key for child in operands(expr) for key in self._behind(child))


def _names(func: Function, attribute: str, count: int) -> list[str]:
    """What the model calls its inputs or outputs; numbers where it does not say."""
    given = func.attrs[attribute] if func.attrs is not None and attribute in func.attrs else ()
    known = [str(name) for name in given]
    return known if len(known) == count else [f"{attribute.split('_')[0]} {i}" for i in range(count)]


def _variables(expr: Expr) -> Iterator[Var]:
    if isinstance(expr, Var):
        yield expr
    for child in operands(expr):
        yield from _variables(child)


def _behind(key: _Key, reads: Mapping[_Key, Mapping[_Key, None]], dropped: Collection[_Key]) -> set[_Key]:
    """`key`, or where it is dropped, the nodes that stay from which its data comes."""
    found, seen, waiting = set(), set(), [key]
    while waiting:
        each = waiting.pop()
        if each in seen:
            continue
        seen.add(each)
        if each in dropped:
            waiting += reads.get(each, {})
        else:
            found.add(each)
    return found
