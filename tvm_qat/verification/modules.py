"""The modules of one model, stage by stage, and the tensors that two stages have in common.

    simulation   as imported: float operators between fake quantization
    canonical    every fake quantization is quantize and dequantize
    reference    folded into integers, in the model's own layout; not fused
    fused        folded, laid out and fused: what is compiled

Which integer tensor of the folded module stands for which quantizer of the model is not looked up
by names: the canonical module is folded once more with all its quantized tensors as results, and
no pass changes what a result means.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat import pipeline
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    Function,
    IRModule,
    MatchCast,
    Tuple,
    TupleGetItem,
    TupleType,
    Var,
    bindings_of,
    match_again,
    op_name,
    rebuild,
    same_graph,
    shape_of,
    substitute,
    tvm,
)
from tvm_qat.verification.evaluate import input_names
from tvm_qat.verification.health import constant_variables
from tvm_qat.verification.points import Pair, Point, pairs_of, points_of, results_of, simulated_of

LAID_OUT = ("choose_layout", "fuse")
"""Passes after the reference: it stays in the model's own layout, and is not fused."""


@dataclass(frozen=True)
class Modules:
    """All stages, with known shapes. outputs : how many results of `reference` are the model's own.

    simulation : the very canonical module where both are the same graph.
    """

    simulation: IRModule
    canonical: IRModule
    reference: IRModule
    fused: IRModule
    pairs: tuple[Pair, ...]
    points: tuple[Point, ...]
    outputs: int


def specialize(mod: IRModule, shapes: Mapping[str, Sequence[int]]) -> IRModule:
    """`mod` with the symbolic dimensions of main's inputs fixed. shapes : by input name."""
    main = mod["main"]
    sizes: dict[Any, int] = {}
    for name, param in zip(input_names(main), main.params, strict=True):
        for dim, size in zip(shape_of(param) or (), shapes[name], strict=True):
            if isinstance(dim, tvm.tirx.Var):
                sizes.setdefault(dim, int(size))
    if not sizes:
        return mod
    out = IRModule(mod.functions, attrs=mod.attrs)
    out.update_func(mod.get_global_var("main"), main.bind_symbolic_vars(sizes))
    return out


def modules_of(source: IRModule, *, rounding: str = "half_even", disabled: Collection[str] = ()) -> Modules:
    """source : an imported module with known shapes."""
    canonical = pipeline.run(source, rounding=rounding, disabled=disabled, until="extract_qparams")
    watched = _watched(canonical)
    unlaid = {*disabled, *LAID_OUT}
    reference = pipeline.run(_returning(canonical, watched), rounding=rounding, disabled=unlaid)
    fused = pipeline.run(source, rounding=rounding, disabled=disabled)
    # the same graph needs to run once only
    source = canonical if same_graph(source["main"], canonical["main"]) else source
    fields = results_of(reference["main"])
    count = len(fields) - len(watched)
    pairs = pairs_of(source["main"], canonical["main"])
    simulated = {pair.canonical: pair.simulated for pair in pairs}
    simulated |= simulated_of(source["main"], canonical["main"])
    points = points_of(reference["main"], canonical["main"], watched, fields[count:], simulated)
    return Modules(source, canonical, reference, fused, tuple(pairs), tuple(points), count)


# ---------------------------------------------------------------- quantized tensors as results


def _watched(canonical: IRModule) -> list[Var]:
    """The results of every quantize of an activation."""
    constant = constant_variables(canonical["main"])
    return [
        binding.var
        for binding in bindings_of(canonical["main"])
        if op_name(binding.value) == "qnn.quantize" and binding.var not in constant
    ]


def _returning(mod: IRModule, watched: Sequence[Var]) -> IRModule:
    """`mod` whose main returns `watched` after its own results."""

    def make_body(func: Function, builder: BlockBuilder) -> Expr:
        env: dict[Var, Expr] = {}
        for binding in bindings_of(func):
            value = substitute(binding.value, env)
            if isinstance(binding, MatchCast):
                env[binding.var] = match_again(builder, binding, value)
            else:
                env[binding.var] = builder.emit(value, binding.var.name)
        own = substitute(func.body.body, env)
        if isinstance(func.ret_ty, TupleType):
            fields = [TupleGetItem(own, i) for i in range(len(func.ret_ty.fields))]
        else:
            fields = [own]
        return builder.emit_output(Tuple([*fields, *(env[var] for var in watched)]))

    return rebuild(mod, make_body)
