"""Takes the parameters that training learned out of fake quantization.

Before:                                        After:
    y = qnn.fake_quantize(x, s, z)                 q = qnn.quantize(x, s, z)
                                                   y = qnn.dequantize(q, s, z)
    y = qnn.fake_quantize_range(x, lo, hi)         the same, scale and zero point nudged from lo, hi

The producer's rounding stays with the quantize.
"""

from __future__ import annotations

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    IRModule,
    Var,
    array_of,
    attrs_of,
    dtype_of,
    op_name,
    rewrite,
    shape_of,
    source_of,
    with_source,
)
from tvm_qat.qnn import build
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams, nudged_range


def extract_qparams(mod: IRModule) -> IRModule:
    return rewrite(mod, lambda _func: _visit)


def _visit(builder: BlockBuilder, var: Var, value: Expr) -> Expr | None:
    name = op_name(value)
    if name == "qnn.fake_quantize":
        params, formula = params_of(value, "output"), str(value.attrs["rounding"])
        if params is None:
            reason = "the scale of a fake quantization is computed at run time"
            raise UnsupportedError(located(reason, node=source_of(value), remedy="export with fixed scales"))
    elif name == "qnn.fake_quantize_range":
        params, formula = _from_range(value), "nudged_range"
    else:
        return None
    params = params.check_axis(shape_of(var) or ())
    source = source_of(value)
    q = builder.emit(with_source(build.quantize(value.args[0], params, formula), source))
    return build.dequantize(q, params, dtype_of(var))


def _from_range(call: Expr) -> QParams:
    attrs = attrs_of(call)
    try:
        return nudged_range(
            array_of(call.args[1]), array_of(call.args[2]), bits=attrs["bits"],
            signed=bool(attrs["signed"]), narrow_range=bool(attrs["narrow_range"]),
            axis=attrs.get("output_axis"),
        )  # fmt: skip
    except InputError as error:
        raise InputError(located(str(error), node=source_of(call))) from None
