"""Which calls each kernel runs, kept through TVM's own passes, which forget names.

A PrimFunc's attributes say which kernel it is (KERNEL), for which instruction set (ISA), and for each
of its calls in order the node that stands for it (SOURCES) and what it does of the module that was
lowered (PLACES): numbers of main's bindings, once elementwise calls are joined (`gather_islands`).
Operators without a kernel of ours, which TVM writes itself, are kernel `tvm`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    Var,
    at_place,
    bindings_of,
    is_graph,
    op_name,
    place_of,
    rewrite,
    source_of,
    tvm,
    with_source,
)

KERNEL, ISA, SOURCES, PLACES = "qat.kernel", "qat.isa", "qat.sources", "qat.places"

TVM, GENERIC = "tvm", "generic"
"""Kernel and instruction set of what TVM writes itself."""

Run = tuple[str, tuple[int, ...]]
"""One call of a kernel: the node that stands for it, and the places of what it does."""


def with_runs(func: Any, runs: Sequence[Run]) -> Any:
    """A PrimFunc that says what its calls do."""
    places = [list(places) for _, places in runs]
    return func.with_attr(SOURCES, [source for source, _ in runs]).with_attr(PLACES, places)


def chosen_kernels(mod: IRModule) -> list[dict[str, Any]]:
    """What runs each call of a lowered module, in no order.

    `node` that stands for the call, `places` of what it does, `function`: the PrimFunc's symbol,
    `kernel` and `isa`.
    """
    return [
        {
            "node": str(node),
            "places": tuple(map(int, places)),
            "function": gvar.name_hint,
            "kernel": str(func.attrs[KERNEL]),
            "isa": str(func.attrs[ISA]),
        }
        for gvar, func in mod.functions_items()
        if PLACES in (func.attrs or {})
        for node, places in zip(func.attrs[SOURCES], func.attrs[PLACES], strict=True)
    ]


@tvm.transform.module_pass(opt_level=0, name="tvm_qat.with_sources")
class WithSources:
    """A pass that replaces calls one by one; what it makes of a call keeps the call's node and place."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        bindings = _graph_bindings(mod)
        calls = {binding.var: binding.value for binding in bindings if isinstance(binding.value, Call)}

        def make_visit(func: Function) -> Any:
            owners = _owners(func, calls)

            def visit(_builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
                owner = owners.get(var)
                if owner is None or place_of(owner) is None or place_of(value) is not None:
                    return None
                return at_place(with_source(value, source_of(owner)), place_of(owner) or 0)

            return visit

        return rewrite(self.inner(mod), make_visit)


def _graph_bindings(mod: IRModule) -> Iterator[Any]:
    for _, func in mod.functions_items():
        if is_graph(func):
            yield from bindings_of(func)


def _owners(func: Function, calls: Mapping[Var, Expr]) -> dict[Var, Expr]:
    """The call that each variable comes from; new ones belong to the next that was there before."""
    owners: dict[Var, Expr] = {}
    waiting: list[Var] = []
    for binding in bindings_of(func):
        if isinstance(binding.value, Call):
            waiting.append(binding.var)
        if binding.var in calls:
            owners.update(dict.fromkeys(waiting, calls[binding.var]))
            waiting.clear()
    return owners


@tvm.transform.module_pass(opt_level=0, name="tvm_qat.named_kernels")
class NamedKernels:
    """Passes between TVM's grouping of operators and the calls that are left of it.

    Every kernel says what those of its calls do that TVM has not folded. Whatever is called and is no
    kernel of ours is marked as TVM's own. grouping : the first of the passes, which make PrimFuncs;
    `inner`, the others, read these marks to name nodes.
    """

    def __init__(self, grouping: Any, inner: Sequence[Any]) -> None:
        self.passes = [grouping, tvm.transform.Sequential(list(inner))]

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        known: dict[Var, list[Run]] = {}
        for binding in _graph_bindings(mod):
            value = binding.value
            known[binding.var] = known.get(value, []) if isinstance(value, Var) else _runs(mod, value)
        for each in self.passes:
            mod = each(mod)
            mod = _marked(mod, _runs_of_kernels(mod, known))
        return mod


def _runs_of_kernels(mod: IRModule, known: Mapping[Var, Sequence[Run]]) -> dict[str, list[Run]]:
    runs: dict[str, list[Run]] = {}
    for binding in _graph_bindings(mod):
        if op_name(binding.value) == "relax.call_tir":
            found = known.get(binding.var, [])
            source = next((source for source, _ in reversed(found) if source), "")
            places = tuple(dict.fromkeys(place for _, each in found for place in each))
            runs.setdefault(binding.value.args[0].name_hint, []).append((source, places))
    return runs


def _marked(mod: IRModule, runs: Mapping[str, Sequence[Run]]) -> IRModule:
    out = IRModule(mod.functions, attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if gvar.name_hint in runs:
            if KERNEL not in (func.attrs or {}):
                func = func.with_attr(KERNEL, TVM).with_attr(ISA, GENERIC)
            out[gvar] = with_runs(func, runs[gvar.name_hint])
        elif PLACES in (func.attrs or {}):  # of a call that a pass has made a view since
            out[gvar] = func.without_attr(SOURCES).without_attr(PLACES)
    return out


def _runs(mod: IRModule, value: Expr) -> list[Run]:
    """What a call does; for a group that TVM made, each of its calls."""
    if isinstance(value, Call) and isinstance(value.op, tvm.ir.GlobalVar):
        inner = mod[value.op]
        if isinstance(inner, Function):
            return [run for binding in bindings_of(inner) for run in _runs(mod, binding.value)]
    place = place_of(value)
    return [(source_of(value) or "", (place,))] if isinstance(value, Call) and place is not None else []
