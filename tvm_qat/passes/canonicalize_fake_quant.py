"""Every spelling of fake quantization becomes the dialect's.

Before:                                           After:
    q = relax.quantize(x, s, z)                       q = qnn.quantize(x, s, z)
    y = relax.dequantize(q, s, z)                     y = qnn.dequantize(q, s, z)

    a = round(x / s)                                  y = qnn.fake_quantize(x, s, 0, [lo, hi])
    y = clip(a, lo, hi) * s

    q = clip(qnn.quantize(x, s, z), lo, hi)           q = qnn.quantize(x, s, z, [lo, hi])

The second form is a chain that trainers write out (`written_out` lists its spellings). It is
recognized by its structure and constants, from whomever it comes. Scales may be per channel. The
third is how Brevitas and TensorRT export less than 8 bits: quantize, clip, dequantize.

Kept on purpose: chains whose constants do not fit together (a different scale on both ends,
bounds that are no whole numbers, more than 16 bits): they are arithmetic of the user's own.
"""

from __future__ import annotations

from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    IRModule,
    Var,
    array_of,
    attrs_of,
    dtype_of,
    is_const,
    op_name,
    rewrite,
    shape_of,
)
from tvm_qat.passes.match import definition
from tvm_qat.passes.written_out import chain_before
from tvm_qat.qnn import build
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import STORAGE_RANGE, QParams


def canonicalize_fake_quant(mod: IRModule) -> IRModule:
    return rewrite(mod, lambda _func: _visit)


def _visit(builder: BlockBuilder, _var: Var, value: Expr) -> Expr | None:
    name = op_name(value)
    if name == "relax.quantize":
        return _quantize(value)
    if name == "relax.dequantize":
        return _dequantize(value)
    if name == "relax.clip":
        return _clipped_integers(builder, value)
    if name in ("relax.multiply", "relax.divide"):
        found = chain_before(builder, value)
        return None if found is None else build.fake_quantize(*found)
    return None


# ---------------------------------------------------------------- TVM's own operators


def _quantize(call: Expr) -> Expr | None:
    params = _params(call, str(attrs_of(call)["out_dtype"]))
    return None if params is None else build.quantize(call.args[0], params)


def _dequantize(call: Expr) -> Expr | None:
    params = _params(call, dtype_of(call.args[0]))
    return None if params is None else build.dequantize(call.args[0], params, dtype_of(call))


def _params(call: Expr, dtype: str) -> QParams | None:
    """None if they are computed at run time, or if the dtype is no integer (float8)."""
    scale, zero_point = call.args[1:3]
    if not (is_const(scale) and is_const(zero_point)) or dtype not in STORAGE_RANGE:
        return None
    params = QParams(array_of(scale), array_of(zero_point), dtype, attrs_of(call)["axis"])
    return params.check_axis(shape_of(call.args[0]) or ())


def _clipped_integers(builder: BlockBuilder, call: Expr) -> Expr | None:
    """Saturation to the range, then to a narrower one, is saturation to the narrower one."""
    made = definition(builder, call.args[0])
    params = params_of(made, "output") if op_name(made) == "qnn.quantize" else None
    low, high = (getattr(arg, "value", None) for arg in call.args[1:])
    if params is None or not isinstance(low, int | float) or not isinstance(high, int | float):
        return None
    qmin, qmax = (max(params.range[0], int(low)), min(params.range[1], int(high)))
    if qmin >= qmax:
        return None
    return build.quantize(made.args[0], params.with_(qmin=qmin, qmax=qmax), str(made.attrs["rounding"]))
