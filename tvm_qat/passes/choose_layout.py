"""Puts activations channels-last (NHWC), the layout that dot-product instructions read.

Before:                                        After:
    q = qnn.quantize(x)                            q = qnn.quantize(x)
    c = qnn.conv2d(q, w; NCHW, OIHW)               t = permute_dims(q, [0, 2, 3, 1])
    r = qnn.requantize(c; axis=1)                  c = qnn.conv2d(t, w'; NHWC, OHWI)
    return qnn.dequantize(r)                       r = qnn.requantize(c; axis=3)
                                                   p = permute_dims(r, [0, 3, 1, 2])
                                                   return qnn.dequantize(p)

One walk forward: what a convolution makes is carried channels-last through every operator that
knows what to do with it, and turned back where one does not, or at the model's end. Two
transposes that meet cancel; weights are transposed at compile time.

Kept on purpose: tensors that never meet a convolution; convolutions that are channels-last.
"""

from __future__ import annotations

from tvm_qat.ir import Expr, IRModule, op_name
from tvm_qat.passes.carry import Walk, carry
from tvm_qat.passes.layout.rules import RULES
from tvm_qat.passes.layout.values import settle


def choose_layout(mod: IRModule) -> IRModule:
    return carry(mod, _visit, settle)


def _visit(walk: Walk, expr: Expr) -> object:
    rule = RULES.get(op_name(expr))
    return None if rule is None else rule(walk, expr, [walk.lookup(arg) for arg in expr.args])
