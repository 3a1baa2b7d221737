"""Keeps LLVM from contracting float multiplications into fused multiply-adds.

    y = a * b + c        ->        y = fence(a * b) + c

TVM lets LLVM contract wherever the target has the instruction, so a float island would give other
bits on a machine with FMA than on one without. The fence is LLVM's `llvm.arithmetic.fence`: no
instruction, it only keeps the product rounded. Every product is fenced, not only those that are
added in the same expression: LLVM also contracts through buffers that it keeps in registers.
"""

from __future__ import annotations

from typing import Any

import tvm_ffi

from tvm_qat.ir import IRModule, tvm
from tvm_qat.kernels.expressions import fence

_FENCED = ("float32", "float64")


@tvm.transform.module_pass(opt_level=0, name="StrictFloat")
class StrictFloat:
    """Fences every float32 and float64 product of every PrimFunc."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        out = IRModule(mod.functions, attrs=mod.attrs)
        for gvar, func in mod.functions_items():
            if isinstance(func, tvm.tirx.PrimFunc):
                out[gvar] = func.with_body(fence_products(func.body))
        return out


def fence_products(body: Any) -> Any:
    """A TIR statement with its float products fenced."""
    return tvm_ffi.structural_map(body, (tvm.tirx.Mul, _fence_product))


def _fence_product(product: Any) -> Any:
    dtype = str(product.ty.dtype)
    return fence(product) if dtype.split("x")[0] in _FENCED else product
