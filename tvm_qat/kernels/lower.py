"""Replaces every call of the dialect by a call of a generated PrimFunc.

    c = composite(x)                    c = call_tir(conv2d_requantize, (x, weights, bias, ...))
    y = qnn.softmax(c, ...)      ->     y = call_tir(softmax, (c, table, scalars))
    z = relax.nn.relu(f)                z = relax.nn.relu(f)

Weights and parameters are operands, so equal shapes share one PrimFunc. The PrimFunc's attributes
say which kernel it is ("qat.kernel"), for which instruction set ("qat.isa") and which nodes of the
model it runs, in the order of their calls ("qat.sources").
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
    bindings_of,
    is_graph,
    op_name,
    relax,
    rewrite,
    source_of,
    tvm,
    with_source,
)
from tvm_qat.kernels.fused import Fused, fused_of_call, fused_of_function
from tvm_qat.kernels.islands import gather_islands
from tvm_qat.kernels.table import choose
from tvm_qat.qnn.composite import COMPOSITE

KERNEL, ISA, SOURCES = "qat.kernel", "qat.isa", "qat.sources"


def lower(mod: IRModule, target: Any) -> IRModule:
    """Raises UnsupportedError, naming the node, where no kernel can be made."""
    mod = gather_islands(mod)
    composites = {gvar.name_hint: func for gvar, func in mod.functions_items() if _is_composite(func)}

    def make_visit(_func: Function) -> Any:
        def visit(builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
            fused = _fused(composites, var, value)
            return None if fused is None else _call_kernel(builder, fused, target)

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


def chosen_kernels(mod: IRModule) -> list[dict[str, str]]:
    """What runs each call of a lowered module: `node`, `function`, `kernel` and `isa`, in no order."""
    return [
        {
            "node": str(node),
            "function": gvar.name_hint,
            "kernel": str(func.attrs[KERNEL]),
            "isa": str(func.attrs[ISA]),
        }
        for gvar, func in mod.functions_items()
        if SOURCES in (func.attrs or {})
        for node in func.attrs[SOURCES]
    ]


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
    """`mod` with the names of the nodes that each kernel runs attached to it."""
    sources: dict[str, list[str]] = {}
    for _, func in mod.functions_items():
        if is_graph(func):
            for binding in bindings_of(func):
                if op_name(binding.value) == "relax.call_tir":
                    name = binding.value.args[0].name_hint
                    sources.setdefault(name, []).append(source_of(binding.value) or "")
    out = IRModule(mod.functions, attrs=mod.attrs)
    for gvar, func in mod.functions_items():
        if gvar.name_hint in sources and KERNEL in (func.attrs or {}):
            out[gvar] = func.with_attr(SOURCES, sources[gvar.name_hint])
    return out
