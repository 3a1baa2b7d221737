"""Turns what kernels write for LLVM into calls of the helpers in `device/`, in every PrimFunc for a GPU.

    llvm.lrint(x)              ->    qat_nearest(x)
    qat.exp(x)                 ->    qat_exp(x)
    rsqrt(x)                   ->    1 / qat_square_root(x)    (as LLVM code has it)
    max(x, y) of floats        ->    qat_greatest(x, y)   (what LLVM code does with NaN)

Products need no fences: the source is compiled without contraction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm_ffi

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Call, IRModule, tvm
from tvm_qat.kernels.functions import FORMULAS
from tvm_qat.kernels.sources import SOURCES
from tvm_qat.kernels.tables import one_load

_tir = tvm.tirx

_HELPERS = {
    "llvm.arithmetic.fence": "qat_fence",
    "llvm.fma": "qat_multiply_add",
    "llvm.lrint": "qat_nearest",
    "llvm.fabs": "fabsf",
    "llvm.copysign": "copysignf",
}
_OF_THE_LIBRARY = (
    "sin", "cos", "tan", "sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2",
    "rsqrt", "exp10", *FORMULAS,
)  # fmt: skip
"""Functions whose results differ from machine to machine."""


@tvm.transform.module_pass(opt_level=0, name="DeviceCalls")
class DeviceCalls:
    """After `OwnFunctions`."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, _tir.PrimFunc):
                nodes = ", ".join(map(str, (func.attrs or {}).get(SOURCES, [])))
                out[gvar] = func.with_body(device_calls(func.body, nodes or gvar.name_hint))
        return out


def device_calls(body: Any, node: str) -> Any:
    """A TIR statement with calls of helpers; `node` is named where there is no helper."""
    refused: list[str] = []  # raising inside of the map has corrupted TVM's heap
    replaced = [
        (Call, lambda call: _call(call, refused)),
        (_tir.Max, _of_floats("qat_greatest")), (_tir.Min, _of_floats("qat_least")),
    ]  # fmt: skip
    made = tvm_ffi.structural_map(body, replaced)
    if refused:
        reason = f"{', '.join(dict.fromkeys(refused))} has no form with the same bits on a GPU"
        raise UnsupportedError(located(reason, node=node, remedy="compile for an llvm target"))
    return made


def _of_floats(helper: str) -> Callable[[Any], Any]:
    """Not a Select: it reads an operand twice, so that chains of them would grow exponentially."""

    def replaced(old: Any) -> Any:
        dtype = str(old.ty.dtype)
        return _tir.call_pure_extern(dtype, helper, old.a, old.b) if dtype.startswith("float") else old

    return replaced


def _call(old: Any, refused: list[str]) -> Any:
    dialect, _, name = str(getattr(old.op, "name", "")).partition(".")
    dtype = str(getattr(old.ty, "dtype", ""))  # of a pointer there is none
    if name in ("call_llvm_intrin", "call_llvm_pure_intrin"):
        intrinsic = str(tvm.target.codegen.llvm_get_intrinsic_name(int(old.args[0])))
        if intrinsic not in _HELPERS:
            refused.append(intrinsic)
            return old
        helper = _HELPERS[intrinsic]
        pure = name == "call_llvm_pure_intrin"
        return (_tir.call_pure_extern if pure else _tir.call_extern)(dtype, helper, *old.args[1:])
    if dialect == "qat" and name in FORMULAS:
        return _tir.call_pure_extern(dtype, f"qat_{name}", *old.args)
    if dialect == "qat" and name == "entry":
        return one_load(old)
    if dialect in ("tirx", "prim") and name in ("sqrt", "rsqrt") and dtype == "float32":
        root = _tir.call_pure_extern(dtype, "qat_square_root", *old.args)
        return root if name == "sqrt" else _tir.Div(_tir.FloatImm(dtype, 1.0), root)
    if dialect in ("tirx", "prim") and name in _OF_THE_LIBRARY:
        refused.append(f"{name} of {dtype}")
    return old
