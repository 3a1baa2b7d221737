"""What importers and callers mark in a module, for passes and reports to read.

VALUE_NAMES, an attribute of `main`: how the model calls the results of its nodes, as lists by the node's
name. Absent where a node and its result have one name.
NODE_KINDS, an attribute of `main`: the operator of each of the model's nodes, as its format calls it.
KEPT, an attribute of the module: nodes that stay in float because the caller said so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tvm_qat.ir import IRModule

VALUE_NAMES = "value_names"
NODE_KINDS = "node_kinds"
KEPT = "qat.kept"


def node_kinds(mod: IRModule) -> dict[str, str]:
    """By the node's name; empty where a module came from elsewhere."""
    attrs = mod["main"].attrs
    given = attrs[NODE_KINDS] if attrs is not None and NODE_KINDS in attrs else {}
    return {str(name): str(kind) for name, kind in given.items()}


def keep(mod: IRModule, requests: Mapping[str, Sequence[str]]) -> IRModule:
    """`mod` with nodes marked as kept in float. requests : the nodes by what the caller wrote."""
    return mod.with_attr(KEPT, {wish: list(nodes) for wish, nodes in requests.items()})


def requests_of(mod: IRModule) -> dict[str, tuple[str, ...]]:
    """What `keep` was told."""
    given = mod.attrs[KEPT] if mod.attrs is not None and KEPT in mod.attrs else {}
    return {str(wish): tuple(map(str, nodes)) for wish, nodes in given.items()}


def kept_in_float(mod: IRModule) -> frozenset[str]:
    """The names of the marked nodes."""
    return frozenset(node for nodes in requests_of(mod).values() for node in nodes)
