"""Attaches the names of the model's nodes to the bindings they became.

TVM's converters emit bindings of their own, and a span can be given to an expression only when
it is made. So the walk notes the last variable of each node, and here, where the bindings of the
finished function stand in the order of emission, each goes to the node whose mark follows next.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm_qat.ir import Function, IRModule, Var, bindings_of, rewrite, with_source

Marks = Sequence[tuple[Var, str]]


def with_source_names(mod: IRModule, marks: Marks) -> IRModule:
    """marks : (last variable of a node, the node's name), in the order of emission."""
    owners = _owners(mod["main"], marks)
    return rewrite(mod, lambda _func: lambda _builder, var, value: with_source(value, owners.get(var)))


def _owners(func: Function, marks: Marks) -> dict[Var, str]:
    order = [binding.var for binding in bindings_of(func)]
    position = {var: index for index, var in enumerate(order)}
    owners: dict[Var, str] = {}
    begin = 0
    for var, name in marks:
        end = position.get(var, -1) + 1
        owners.update(dict.fromkeys(order[begin:end], name))
        begin = max(begin, end)
    return owners
