"""Replaces calls of the C library in float code by functions that every machine computes alike.

    y = tirx.exp(x)        ->        y = qat.exp(x)        ->        y = (polynomial of x)

The first step is the pass `OwnFunctions`, the second TVM's own last one, which lowers intrinsics:
in between, a function is one call that loops and vectors can be made around.

float16 and bfloat16 are computed in float32 and rounded again. float64 keeps the C library, as do
the functions that `functions.FORMULAS` lacks (sine, cosine and their kin). Square roots, quotients
and roundings to whole numbers are exact on every machine and stay as they are.

Powers by a constant 1, 2 or 3 are products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm_ffi
from tvm.ir import Op, _ffi_api
from tvm.tirx.op import register_intrin_lowering

from tvm_qat.ir import Call, IRModule, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.functions import FORMULAS, expression
from tvm_qat.kernels.strict_float import fence_products

_COMPUTED_IN_FLOAT32 = ("float32", "float16", "bfloat16")
_WHOLE_POWERS = (1, 2, 3)
_PURE = 1


@tvm.transform.module_pass(opt_level=0, name="OwnFunctions")
class OwnFunctions:
    """Functions of every PrimFunc. Before `StrictFloat`: powers become products."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tvm.tirx.PrimFunc):
                out[gvar] = func.with_body(replace_functions(func.body))
        return out


def replace_functions(body: Any) -> Any:
    """A TIR statement or expression with our functions instead of the C library's."""
    return tvm_ffi.structural_map(body, (Call, _replace))


def call(name: str, *arguments: Any) -> Any:
    """One of `functions.FORMULAS` of float32 expressions."""
    return tvm.tirx.call_intrin("float32", Op.get(f"qat.{name}"), *arguments)


def _replace(old: Any) -> Any:
    dialect, _, name = str(getattr(old.op, "name", "")).partition(".")
    if dialect not in ("tirx", "prim") or name not in FORMULAS:
        return old
    dtype = str(old.ty.dtype)
    if dtype not in _COMPUTED_IN_FLOAT32:
        return old
    arguments = [ex.cast(argument, "float32") for argument in old.args]
    product = _whole_power(*arguments) if name == "pow" else None
    return ex.cast(call(name, *arguments) if product is None else product, dtype)


def _whole_power(x: Any, exponent: Any) -> Any:
    if not isinstance(exponent, tvm.tirx.FloatImm) or exponent.value not in _WHOLE_POWERS:
        return None
    product = x
    for _ in range(int(exponent.value) - 1):
        product = product * x
    return product


def _lowered(old: Any) -> Any:
    name = old.op.name.removeprefix("qat.")
    return fence_products(expression(FORMULAS[name], *old.args))


def register(name: str, arguments: int, lowered: Callable[[Any], Any]) -> None:
    """A pure intrinsic that vectors can be made of; `lowered` writes a call of it out, in TVM's last pass."""
    if name in Op.list_op_names():
        return
    _ffi_api.RegisterOp(name, "the same bits on every machine")
    op = Op.get(name)
    op.set_num_inputs(arguments)
    op.set_attr("TCallEffectKind", _PURE)
    op.set_attr("TVectorizable", True)
    op.set_attr("TScriptPrinterName", name)
    register_intrin_lowering(name, target="llvm", f=lowered)


for _name in FORMULAS:
    register(f"qat.{_name}", 2 if _name == "pow" else 1, _lowered)
