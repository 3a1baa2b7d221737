"""Replaces every call of the dialect by a call of a generated PrimFunc.

    c = composite(x)                    c = call_tir(conv2d_requantize, (x, weights, bias, ...))
    y = qnn.softmax(c, ...)      ->     y = call_tir(softmax, (c, table, scalars))
    z = relax.nn.relu(f)                z = relax.nn.relu(f)

Weights and parameters are operands, so equal shapes share one PrimFunc, whose attributes say what it
runs (see sources).
"""

from __future__ import annotations

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
    relax,
    rewrite,
    source_of,
    tvm,
    with_source,
)
from tvm_qat.kernels.fused import Fused, fused_of_call, fused_of_function
from tvm_qat.kernels.islands import gather_islands
from tvm_qat.kernels.sources import ISA, KERNEL, Run, with_runs
from tvm_qat.kernels.table import choose
from tvm_qat.qnn.composite import COMPOSITE


def lower(mod: IRModule, target: Any) -> IRModule:
    """Raises UnsupportedError, naming the node, where no kernel can be made."""
    mod = gather_islands(mod)
    composites = {gvar.name_hint: func for gvar, func in mod.functions_items() if _is_composite(func)}

    def make_visit(func: Function) -> Any:
        places = {binding.var: place for place, binding in enumerate(bindings_of(func))}

        def visit(builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
            fused = _fused(composites, var, value)
            call = value if fused is None else _call_kernel(builder, fused, target)
            return at_place(call, places[var]) if isinstance(call, Call) else None

        return visit

    return _with_sources(rewrite(mod, make_visit))


def kernel_calls(mod: IRModule) -> tuple[IRModule, list[tuple[Var, str]]]:
    """The module that `lower` begins with, and the variables of main that a kernel of ours makes, with
    the name of the node that it works for; in order.
    """
    mod = gather_islands(mod)
    composites = {gvar.name_hint: func for gvar, func in mod.functions_items() if _is_composite(func)}
    made = [(b.var, _fused(composites, b.var, b.value)) for b in bindings_of(mod["main"])]
    return mod, [(var, fused.source or "") for var, fused in made if fused is not None]


def _is_composite(func: Any) -> bool:
    return isinstance(func, Function) and func.attrs is not None and func.attrs.get("Composite") == COMPOSITE


def _fused(composites: dict[str, Function], var: Var, value: Expr) -> Fused | None:
    if not isinstance(value, Call):
        return None
    if isinstance(value.op, tvm.ir.GlobalVar):
        func = composites.get(value.op.name_hint)
        return None if func is None else fused_of_function(func, list(value.args), var.ty)
    return fused_of_call(var, value) if op_name(value).startswith("qnn.") else None


def _call_kernel(builder: BlockBuilder, fused: Fused, target: Any) -> Expr:
    row = choose(fused, target)
    kernel = row.build(fused, target)
    func = kernel.func.with_attr(KERNEL, row.name).with_attr(ISA, row.isa)
    gvar = builder.add_func(func, f"{fused.name}_kernel")
    return with_source(relax.call_tir(gvar, kernel.args, fused.out), fused.source)


def _with_sources(mod: IRModule) -> IRModule:
    """`mod` with what the calls of each kernel do attached to it."""
    runs: dict[str, list[Run]] = {}
    for _, func in mod.functions_items():
        if is_graph(func):
            for binding in bindings_of(func):
                call = binding.value
                if op_name(call) == "relax.call_tir":
                    run = source_of(call) or "", (place_of(call) or 0,)
                    runs.setdefault(call.args[0].name_hint, []).append(run)
    out = IRModule(mod.functions, attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if gvar.name_hint in runs and KERNEL in (func.attrs or {}):
            out[gvar] = with_runs(func, runs[gvar.name_hint])
    return out
