"""Moves the names that an expression gives to parts of itself before the expression.

    f(let a = g(let b = h in b * b) in a + a)   ->   let b = h in let a = g(b * b) in f(a + a)

TVM's code generator simplifies each named value, those named inside of it once more for each name
around them: time grows exponentially with the depth. Behind one another each is simplified once.
LiteRT's arithmetic names a value for each rounding, so that chains of it took most of a compilation.

Kept on purpose: what is evaluated under a condition only (`if_then_else`), as it may read where
nothing is; and single names, since TVM's elimination of common subexpressions can put two values in
the wrong order where they stand first ("used before definition").
"""

from __future__ import annotations

from typing import Any

import tvm_ffi

from tvm_qat.ir import Call, IRModule, tvm

_CONDITION = "if_then_else"


@tvm.transform.module_pass(opt_level=0, name="NamesFirst")
class NamesFirst:
    """In every store of every PrimFunc."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tvm.tirx.PrimFunc):
                stores = (tvm.tirx.BufferStore, _with_names_first)
                out[gvar] = func.with_body(tvm_ffi.structural_map(func.body, stores))
        return out


def _with_names_first(store: Any) -> Any:
    return tvm.tirx.BufferStore(store.buffer, names_first(store.value), store.indices)


def names_first(expr: Any) -> Any:
    """An expression of the same value, all of whose names stand before it; unchanged under conditions,
    and with a single name, which costs nothing where it is."""
    named: dict[Any, Any] = {}
    conditions: list[Any] = []

    def taken_out(let: Any) -> Any:
        named.setdefault(let.var, let.value)
        return let.body

    def seen(call: Any) -> Any:
        if str(getattr(call.op, "name", "")).endswith(_CONDITION):
            conditions.append(call)
        return call

    rest = tvm_ffi.structural_map(expr, [(tvm.tirx.Let, taken_out), (Call, seen)])
    if conditions or len(named) < 2:
        return expr
    for var, value in reversed(named.items()):
        rest = tvm.tirx.Let(var, value, rest)
    return rest
