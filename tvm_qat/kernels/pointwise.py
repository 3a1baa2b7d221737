"""Elementwise operators as terms: functions from a place in the output to its value.

`term_of(call, inputs, operands)` computes the parameters of one call in NumPy, exactly as
`qnn.arithmetic` does, registers them as operands, and returns the term. Epilogues of
convolutions and kernels of their own use the same terms.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from tvm_qat import fixed_point
from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Expr, array_of, attrs_of, dtype_of, is_const, op_name, shape_of, source_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.operands import Operands, Parameter, Site
from tvm_qat.qnn.arithmetic import F32, LARGEST_INT32_FLOAT, Array, multiplier, spread
from tvm_qat.qnn.params import params_of
from tvm_qat.qnn.pointwise import product_factor, quotient_factor
from tvm_qat.qnn.table import argument
from tvm_qat.qparams import QParams, nudged_range

Term: TypeAlias = Callable[[Site], PrimExpr]
TermBuilder: TypeAlias = Callable[[Expr, Sequence[Term], Operands], Term]

_tir = tvm.tirx


def term_of(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    """The value of an elementwise call, given the terms of its data operands."""
    build = TERMS.get(op_name(call))
    if build is None:
        raise UnsupportedError(located(f"{op_name(call)} is not elementwise", node=source_of(call)))
    return build(call, inputs, operands)


def data_arguments(call: Expr) -> int:
    """How many leading arguments of an elementwise call are data, not parameters."""
    return 2 if op_name(call) in _BINARY else 1


def _ndim(expr: Expr) -> int:
    shape = shape_of(expr)
    assert shape is not None
    return len(shape)


def require_params(call: Expr, role: str) -> QParams:
    params = params_of(call, role)
    if params is None:
        reason = f"{op_name(call)} needs {role} parameters known at compile time"
        raise UnsupportedError(located(reason, node=source_of(call)))
    return params


def constant(values: Array, operands: Operands) -> Term:
    parameter = operands.constant(np.asarray(values))
    return lambda site: site.parameter(parameter)


def centred(x: Term, dtype: str, zero_point: Array, operands: Operands) -> Term:
    """x - zero_point as int32."""
    if not np.any(zero_point):
        return lambda site: ex.cast(x(site), "int32")
    subtract = ex.wrapping_subtract if dtype == "int32" else _plain_subtract
    shift = constant(zero_point.astype(np.int32), operands)
    return lambda site: subtract(ex.cast(x(site), "int32"), shift(site))


def _plain_subtract(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return x - y


def saturated(
    real: Term, zero_point: Array, output: QParams, operands: Operands, rounding: str = "half_even"
) -> Term:
    """`qnn.arithmetic.saturate` of a float32 term; zero_point broadcasts against the output."""
    qmin, qmax = output.range
    low, high = (constant(bound, operands) for bound in clamp_bounds(zero_point, output))
    shift = constant(zero_point.astype(np.int32), operands) if np.any(zero_point) else None
    dtype = output.dtype
    return lambda site: ex.saturate(
        real(site), low(site), high(site), shift(site) if shift else None, dtype, rounding
    )


def scaled(x: Term, factor: Array, operands: Operands) -> Term:
    """float32(x) * factor."""
    by = constant(np.asarray(factor, F32), operands)
    return lambda site: ex.cast(x(site), "float32") * by(site)


def requantized(
    x: Term, dtype: str, ndim: int, source: QParams, target: QParams, operands: Operands,
    rounding: str = "half_even",
) -> Term:  # fmt: skip
    """`qnn.arithmetic.requantize` of a term of integers."""
    zero_point = spread(target.zero_point, target.axis, ndim)
    axis = source.axis if source.axis is not None else target.axis
    values = centred(x, dtype, spread(source.zero_point, source.axis, ndim), operands)
    if rounding == "half_even":
        real = scaled(values, spread(multiplier(source, target), axis, ndim), operands)
        return saturated(real, zero_point, target, operands)
    fixed, shift = fixed_point.quantize_multiplier(source.scale / target.scale)
    build = _fixed_double if rounding == "tflite" else _fixed_single
    step = build(values, spread(fixed, axis, ndim), spread(shift, axis, ndim), operands)
    return _clamped(step, zero_point, target, operands)


def _fixed_double(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    by = constant(fixed, operands)
    left = constant(np.maximum(shift, 0).astype(np.int32), operands)
    right = constant(np.maximum(-shift, 0).astype(np.int32), operands)
    return lambda s: ex.fixed_point_double(values(s), by(s), left(s), right(s))


def _fixed_single(values: Term, fixed: Array, shift: Array, operands: Operands) -> Term:
    total = 31 - shift.astype(np.int64)
    by, right = constant(fixed, operands), constant(total, operands)
    half = constant(np.asarray(np.int64(1) << (total - 1)), operands)
    return lambda s: ex.fixed_point_single(values(s), by(s), right(s), half(s))


def _clamped(whole: Term, zero_point: Array, target: QParams, operands: Operands) -> Term:
    """clip(whole + zero_point, qmin, qmax), clamping before the addition so that it cannot overflow."""
    qmin, qmax = target.range
    wide = zero_point.astype(np.int64)
    least, greatest = -(2**31), 2**31 - 1
    low = constant(np.asarray(np.clip(qmin - wide, least, greatest), np.int32), operands)
    high = constant(np.asarray(np.clip(qmax - wide, least, greatest), np.int32), operands)
    shift = constant(zero_point.astype(np.int32), operands)

    def term(site: Site) -> PrimExpr:
        value = whole(site)
        dtype = str(value.ty.dtype)
        inside = _tir.min(_tir.max(value, ex.cast(low(site), dtype)), ex.cast(high(site), dtype))
        return ex.cast(ex.cast(inside, "int32") + shift(site), target.dtype)

    return term


def _requantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    source, target = require_params(call, "input"), require_params(call, "output")
    data = call.args[0]
    rounding = attrs_of(call)["rounding"]
    return requantized(inputs[0], dtype_of(data), _ndim(data), source, target, operands, rounding)


def quantized(x: Term, ndim: int, output: QParams, formula: str, operands: Operands) -> Term:
    """`qnn.arithmetic.quantize` of a float term."""
    scale = spread(output.scale.astype(F32), output.axis, ndim)
    zero_point = spread(output.zero_point, output.axis, ndim)
    if formula == "nudged_range":
        return _nudged(x, scale, zero_point, output, operands)
    if formula == "reciprocal_half_even":
        return saturated(scaled(x, F32(1) / scale, operands), zero_point, output, operands)
    if formula == "reciprocal_zero_point_inside":
        steps, shift = scaled(x, F32(1) / scale, operands), constant(zero_point.astype(F32), operands)
        zero = np.zeros_like(zero_point)
        return saturated(lambda s: ex.fence(steps(s)) + shift(s), zero, output, operands)
    step = constant(scale, operands)
    return saturated(lambda s: ex.cast(x(s), "float32") / step(s), zero_point, output, operands, formula)


def _nudged(x: Term, scale: Array, zero_point: Array, output: QParams, operands: Operands) -> Term:
    qmin, qmax = output.range
    low = constant(((qmin - zero_point).astype(F32) * scale).astype(F32), operands)
    high = constant(((qmax - zero_point).astype(F32) * scale).astype(F32), operands)
    inverse = constant(F32(1) / scale, operands)

    def term(site: Site) -> PrimExpr:
        clamped = _tir.min(_tir.max(ex.cast(x(site), "float32"), low(site)), high(site))
        steps = ex.fence((clamped - low(site)) * inverse(site))
        whole = ex.cast(ex.floor(steps + ex.float32(0.5)), "int32") + ex.int32(qmin)
        return ex.cast(_tir.min(_tir.max(whole, ex.int32(qmin)), ex.int32(qmax)), output.dtype)

    return term


def _quantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    attrs, output = attrs_of(call), params_of(call, "output")
    if output is not None:
        return quantized(inputs[0], _ndim(call.args[0]), output, attrs["rounding"], operands)
    if attrs["rounding"] != "half_even":
        raise UnsupportedError(located("run-time parameters round half to even", node=source_of(call)))
    scale, zero_point = (run_time_scalar(call.args[i], operands) for i in (1, 2))
    dtype, qmin, qmax = attrs["out_dtype"], attrs["qmin"], attrs["qmax"]

    def term(site: Site) -> PrimExpr:
        shift = zero_point(site)
        low, high = ex.float_bounds(shift, qmin, qmax)
        real = ex.cast(inputs[0](site), "float32") / scale(site)
        return ex.saturate(real, low, high, shift, dtype, "half_even")

    return term


def run_time_scalar(value: Expr, operands: Operands) -> Term:
    """A scale or zero point, constant or computed by the graph; of shape () or (1,)."""
    dtype = "int32" if dtype_of(value) != "float32" else "float32"
    if is_const(value):
        return constant(array_of(value).astype(dtype).reshape(()), operands)
    shape = shape_of(value)
    if shape not in ((), (1,)):
        reason = f"a parameter computed at run time must be a scalar, not of shape {shape}"
        raise UnsupportedError(located(reason, node=source_of(value)))
    operand = operands.tensor(value)
    return lambda site: ex.cast(site.element(operand), dtype)


def _dequantize(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    source, out_dtype = params_of(call, "input"), attrs_of(call).get("out_dtype", "float32")
    data = call.args[0]
    if source is not None:
        real = dequantized(inputs[0], dtype_of(data), _ndim(data), source, operands)
        return lambda site: ex.cast(real(site), out_dtype)
    scale, zero_point = (run_time_scalar(call.args[i], operands) for i in (1, 2))

    def term(site: Site) -> PrimExpr:
        whole = ex.wrapping_subtract(ex.cast(inputs[0](site), "int32"), zero_point(site))
        return ex.cast(ex.cast(whole, "float32") * scale(site), out_dtype)

    return term


def dequantized(x: Term, dtype: str, ndim: int, source: QParams, operands: Operands) -> Term:
    zero_point = spread(source.zero_point, source.axis, ndim)
    scale = spread(source.scale.astype(F32), source.axis, ndim)
    return scaled(centred(x, dtype, zero_point, operands), scale, operands)


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
    ndim, dtype = _ndim(call.args[0]), dtype_of(call.args[0])
    whole = quantized(x, ndim, output, formula, operands)
    real = dequantized(whole, output.dtype, ndim, output, operands)
    return lambda site: ex.cast(real(site), dtype)


def _lut(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    entries = Parameter(operands.tensor(call.args[1], indexed=True).name, (256,))
    offset = 128 if dtype_of(call.args[0]) == "int8" else 0
    return lambda site: site.entry(entries, ex.cast(inputs[0](site), "int32") + ex.int32(offset))


def _elementwise_params(call: Expr) -> tuple[QParams, QParams, QParams]:
    lhs, rhs, output = (require_params(call, role) for role in ("lhs", "rhs", "output"))
    if output.per_channel:
        reason = f"{op_name(call)} has one output scale per channel"
        raise UnsupportedError(located(reason, node=source_of(call), remedy="quantize it per tensor"))
    return lhs, rhs, output


def _in_steps(call: Expr, i: int, x: Term, source: QParams, target: QParams, operands: Operands) -> Term:
    """The real value of operand i in steps of the target."""
    ndim = _ndim(call.args[i])
    whole = _centred_operand(call, i, x, source, operands)
    product = scaled(whole, spread(multiplier(source, target), source.axis, ndim), operands)
    return lambda site: ex.fence(product(site))


def _centred_operand(call: Expr, i: int, x: Term, source: QParams, operands: Operands) -> Term:
    data = call.args[i]
    return centred(x, dtype_of(data), spread(source.zero_point, source.axis, _ndim(data)), operands)


def _sum(combine: Callable[[PrimExpr, PrimExpr], PrimExpr]) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = _elementwise_params(call)
        x = _in_steps(call, 0, inputs[0], lhs, output, operands)
        y = _in_steps(call, 1, inputs[1], rhs, output, operands)
        return saturated(lambda s: combine(x(s), y(s)), output.zero_point, output, operands)

    return build


def _product(
    combine: Callable[[PrimExpr, PrimExpr], PrimExpr],
    factor_of: Callable[[QParams, QParams, QParams, int], Array],
) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = _elementwise_params(call)
        x = _centred_operand(call, 0, inputs[0], lhs, operands)
        y = _centred_operand(call, 1, inputs[1], rhs, operands)
        ndim = max(_ndim(call.args[0]), _ndim(call.args[1]))
        factor = constant(factor_of(lhs, rhs, output, ndim), operands)
        return saturated(
            lambda s: combine(ex.cast(x(s), "float32"), ex.cast(y(s), "float32")) * factor(s),
            output.zero_point, output, operands,
        )  # fmt: skip

    return build


def _extreme(combine: Callable[[PrimExpr, PrimExpr], PrimExpr]) -> TermBuilder:
    def build(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
        lhs, rhs, output = _elementwise_params(call)
        x, y = (
            requantized(term, dtype_of(data), _ndim(data), source, output, operands)
            for term, data, source in zip(inputs, call.args[:2], (lhs, rhs), strict=True)
        )
        return lambda s: combine(x(s), y(s))

    return build


def _plain(combine: Callable[..., PrimExpr]) -> TermBuilder:
    """An ordinary Relax operator on integers."""
    return lambda _call, inputs, _operands: lambda s: combine(*(x(s) for x in inputs))


def _add(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return ex.wrapping_add(x, y) if str(x.ty.dtype) == "int32" else x + y


def _clip(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    dtype = dtype_of(call.args[0])
    low, high = (_tir.const(bound.value.value, dtype) for bound in call.args[1:3])
    return lambda s: _tir.min(_tir.max(inputs[0](s), low), high)


def _relu(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    zero = _tir.const(0, dtype_of(call.args[0]))
    return lambda s: _tir.max(inputs[0](s), zero)


_BINARY_TERMS: dict[str, TermBuilder] = {
    "qnn.add": _sum(lambda x, y: x + y),
    "qnn.subtract": _sum(lambda x, y: x - y),
    "qnn.multiply": _product(lambda x, y: x * y, product_factor),
    "qnn.divide": _product(lambda x, y: x / y, quotient_factor),
    "qnn.minimum": _extreme(_tir.min),
    "qnn.maximum": _extreme(_tir.max),
    "relax.add": _plain(_add),
    "relax.maximum": _plain(_tir.max),
    "relax.minimum": _plain(_tir.min),
}
_BINARY = frozenset(_BINARY_TERMS)

TERMS: dict[str, TermBuilder] = {
    **_BINARY_TERMS,
    "qnn.quantize": _quantize,
    "qnn.dequantize": _dequantize,
    "qnn.requantize": _requantize,
    "qnn.fake_quantize": _fake_quantize,
    "qnn.fake_quantize_range": _fake_quantize_range,
    "qnn.lut": _lut,
    "relax.clip": _clip,
    "relax.nn.relu": _relu,
}
"""Every operator that may stand in an epilogue or in a kernel of its own."""

__all__ = ["TERMS", "Term", "argument", "constant", "data_arguments", "run_time_scalar", "term_of"]
