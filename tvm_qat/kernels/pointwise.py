"""Elementwise operators: from a call to the term of its result.

Epilogues of convolutions and kernels of their own use the same terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Expr, array_of, attrs_of, const, dtype_of, is_const, op_name, source_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.binary import BINARY
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.float_terms import FLOAT_BINARY, FLOAT_TERMS
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.tables import entry
from tvm_qat.kernels.terms import (
    Term,
    TermBuilder,
    dequantized,
    quantized,
    rank_of,
    requantized,
    require_params,
    run_time_parameter,
)
from tvm_qat.qnn.arithmetic import NUDGED_FORMULAS
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams, nudged_range

_tir = tvm.tirx


def term_of(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    """The value of an elementwise call, given the terms of its data operands."""
    floats = op_name(call) in FLOAT_TERMS and dtype_of(call.args[0]) == "float32"
    build = (FLOAT_TERMS if floats else TERMS).get(op_name(call))
    if build is None:
        raise UnsupportedError(located(f"{op_name(call)} is not elementwise", node=source_of(call)))
    return build(call, inputs, operands)


def data_arguments(call: Expr) -> int:
    """How many leading arguments of an elementwise call are data, not parameters."""
    return 2 if op_name(call) in _BINARY or op_name(call) in FLOAT_BINARY else 1


def _requantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    source, target = require_params(call, "input"), require_params(call, "output")
    data = call.args[0]
    rounding = attrs_of(call)["rounding"]
    return requantized(inputs[0], dtype_of(data), rank_of(data), source, target, operands, rounding)


def _check_formula(call: Expr, output: QParams, formula: str) -> None:
    if formula in NUDGED_FORMULAS and output.dtype == "int32":
        reason = f"the formula {formula} counts steps in 32 bits, so it has no int32 output"
        raise UnsupportedError(located(reason, node=source_of(call)))


def _quantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    attrs, output = attrs_of(call), params_of(call, "output")
    if output is not None:
        _check_formula(call, output, attrs["rounding"])
        return quantized(inputs[0], rank_of(call.args[0]), output, attrs["rounding"], operands)
    if attrs["rounding"] != "half_even":
        raise UnsupportedError(located("run-time parameters round half to even", node=source_of(call)))
    axis, ndim = attrs_of(call).get("output_axis"), rank_of(call.args[0])
    scale, zero_point = (run_time_parameter(call.args[i], operands, axis, ndim) for i in (1, 2))
    dtype, qmin, qmax = attrs["out_dtype"], attrs["qmin"], attrs["qmax"]

    def term(site: Site) -> PrimExpr:
        shift = zero_point(site)
        low, high = ex.float_bounds(shift, qmin, qmax)
        real = ex.cast(inputs[0](site), "float32") / scale(site)
        return ex.saturate(real, low, high, shift, dtype, "half_even")

    return term


def _dequantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    source, out_dtype = params_of(call, "input"), attrs_of(call).get("out_dtype", "float32")
    data = call.args[0]
    if source is not None:
        real = dequantized(inputs[0], dtype_of(data), rank_of(data), source, operands)
        return lambda site: ex.cast(real(site), out_dtype)
    axis, ndim = attrs_of(call).get("input_axis"), rank_of(call.args[0])
    scale, zero_point = (run_time_parameter(call.args[i], operands, axis, ndim) for i in (1, 2))

    def term(site: Site) -> PrimExpr:
        whole = ex.wrapping_subtract(ex.cast(inputs[0](site), "int32"), zero_point(site))
        return ex.cast(ex.cast(whole, "float32") * scale(site), out_dtype)

    return term


def _fake_quantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    output = require_params(call, "output")
    return _simulated(call, inputs[0], output, attrs_of(call)["rounding"], operands)


def _fake_quantize_range(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    attrs = attrs_of(call)
    if not (is_const(call.args[1]) and is_const(call.args[2])):
        raise UnsupportedError(located("the range is computed at run time", node=source_of(call)))
    output = nudged_range(
        array_of(call.args[1]), array_of(call.args[2]), bits=attrs["bits"], signed=bool(attrs["signed"]),
        narrow_range=bool(attrs["narrow_range"]), axis=attrs.get("output_axis"),
    )  # fmt: skip
    return _simulated(call, inputs[0], output, "nudged_range", operands)


def _simulated(call: Expr, x: Term, output: QParams, formula: str, operands: Operands) -> Term:
    ndim, dtype = rank_of(call.args[0]), dtype_of(call.args[0])
    whole = quantized(x, ndim, output, formula, operands)
    real = dequantized(whole, output.dtype, ndim, output, operands)
    return lambda site: ex.cast(real(site), dtype)


def _lut(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    """The table of int8 data is turned by half, so that its entries follow the bits of the data."""
    table = array_of(call.args[1])
    if dtype_of(call.args[0]) == "int8":
        table = np.roll(table, 128)
    entries = operands.tensor(const(table), indexed=True).name

    def term(site: Site) -> PrimExpr:
        bits = ex.cast(inputs[0](site), "uint8")
        if table.itemsize == 1:
            return entry(site.buffers[entries], bits)
        return site.buffers[entries][ex.cast(bits, "int32")]

    return term


def _plain(combine: Callable[..., PrimExpr]) -> TermBuilder:
    """An ordinary Relax operator on integers."""
    return lambda _call, inputs, _operands: lambda s: combine(*(x(s) for x in inputs))


def _add(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return ex.wrapping_add(x, y) if str(x.ty.dtype) == "int32" else x + y


def _clip(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    dtype = dtype_of(call.args[0])
    low, high = (_tir.const(bound.value, dtype) for bound in call.args[1:3])
    return lambda s: _tir.min(_tir.max(inputs[0](s), low), high)


def _left_shift(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    """By a constant, which is part of the code: a shift by an operand takes longer."""
    if not is_const(call.args[1]) or array_of(call.args[1]).size != 1:
        reason = "relax.left_shift by more than one constant is not supported"
        raise UnsupportedError(located(reason, node=source_of(call)))
    by = _tir.const(int(array_of(call.args[1]).reshape(())), dtype_of(call.args[0]))
    return lambda s: _tir.shift_left(inputs[0](s), by)


def _relu(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    zero = _tir.const(0, dtype_of(call.args[0]))
    return lambda s: _tir.max(inputs[0](s), zero)


def _permute(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    """Axis i of the result is axis axes[i] of the operand."""
    ndim = rank_of(call.args[0])
    axes = [int(axis) for axis in call.attrs.axes] if call.attrs.axes else list(range(ndim))[::-1]
    places = [axes.index(axis) for axis in range(ndim)]
    return lambda site: inputs[0](replace(site, index=tuple(site.index[i] for i in places)))


_BINARY: dict[str, TermBuilder] = {
    **BINARY,
    "relax.add": _plain(_add),
    "relax.maximum": _plain(_tir.max),
    "relax.minimum": _plain(_tir.min),
}

TERMS: dict[str, TermBuilder] = {
    **_BINARY,
    "qnn.quantize": _quantize,
    "qnn.dequantize": _dequantize,
    "qnn.requantize": _requantize,
    "qnn.fake_quantize": _fake_quantize,
    "qnn.fake_quantize_range": _fake_quantize_range,
    "qnn.lut": _lut,
    "relax.clip": _clip,
    "relax.left_shift": _left_shift,
    "relax.nn.relu": _relu,
    "relax.permute_dims": _permute,
}
"""Every operator that may stand in an epilogue or in a kernel of its own."""
