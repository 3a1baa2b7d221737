"""Float operators of Relax, element by element: what TVM's own lowering computes, in our kernels.

float32 only. Each result is fenced, so that TVM's simplifier joins nothing across operators and a
chain has the same bits in one kernel as in several.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from tvm_qat.ir import Expr, array_of, attrs_of, is_const, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.expressions import PrimExpr, float32
from tvm_qat.kernels.operands import Operands, Site
from tvm_qat.kernels.own_functions import replace_functions
from tvm_qat.kernels.terms import Term, TermBuilder

_tir = tvm.tirx


def _gelu(x: PrimExpr) -> PrimExpr:
    return x * (float32(0.5) + _tir.erf(x * float32(0.5**0.5)) * float32(0.5))


def _gelu_tanh(x: PrimExpr) -> PrimExpr:
    inner = float32(math.sqrt(2.0 / math.pi)) * x * (float32(1.0) + float32(0.044715) * x * x)
    return float32(0.5) * x * (float32(1.0) + _tir.tanh(inner))


def _silu(x: PrimExpr) -> PrimExpr:
    return x * _tir.sigmoid(x)


def _relu(x: PrimExpr) -> PrimExpr:
    return _tir.max(x, float32(0.0))


def _negative(x: PrimExpr) -> PrimExpr:
    return x * float32(-1.0)


def _reciprocal_root(x: PrimExpr) -> PrimExpr:
    return float32(1.0) / _tir.sqrt(x)


def _term(combine: Callable[..., PrimExpr]) -> TermBuilder:
    def build(_call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
        return lambda site: ex.fence(replace_functions(combine(*(x(site) for x in inputs))))

    return build


def _clip(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    low, high = (float32(float(bound.value)) for bound in call.args[1:3])
    return lambda site: _tir.min(_tir.max(inputs[0](site), low), high)


def _leaky(call: Expr, inputs: Sequence[Term], _operands: Operands) -> Term:
    slope = float32(float(attrs_of(call)["alpha"]))

    def term(site: Site) -> PrimExpr:
        x = inputs[0](site)
        return _tir.Select(x > float32(0.0), x, x * slope)

    return term


def _power(call: Expr, inputs: Sequence[Term], operands: Operands) -> Term:
    """A constant exponent is a literal: squares and cubes become products."""
    x, exponent = inputs
    if is_const(call.args[1]) and array_of(call.args[1]).size == 1:
        literal = float32(float(array_of(call.args[1]).reshape(())))
        return _term(lambda value: _tir.power(value, literal))(call, [x], operands)
    return _term(_tir.power)(call, [x, exponent], operands)


FLOAT_BINARY: dict[str, TermBuilder] = {
    "relax.add": _term(lambda x, y: x + y),
    "relax.subtract": _term(lambda x, y: x - y),
    "relax.multiply": _term(lambda x, y: x * y),
    "relax.divide": _term(lambda x, y: x / y),
    "relax.power": _power,
    "relax.maximum": _term(_tir.max),
    "relax.minimum": _term(_tir.min),
}

FLOAT_TERMS: dict[str, TermBuilder] = {
    **FLOAT_BINARY,
    "relax.exp": _term(_tir.exp),
    "relax.log": _term(_tir.log),
    "relax.tanh": _term(_tir.tanh),
    "relax.sigmoid": _term(_tir.sigmoid),
    "relax.erf": _term(_tir.erf),
    "relax.sqrt": _term(_tir.sqrt),
    "relax.rsqrt": _term(_reciprocal_root),
    "relax.negative": _term(_negative),
    "relax.abs": _term(_tir.abs),
    "relax.square": _term(lambda x: x * x),
    "relax.clip": _clip,
    "relax.nn.relu": _term(_relu),
    "relax.nn.leakyrelu": _leaky,
    "relax.nn.gelu": _term(_gelu),
    "relax.nn.gelu_tanh": _term(_gelu_tanh),
    "relax.nn.silu": _term(_silu),
}
"""By operator; of float32 operands and results."""

FUNCTIONS = {
    f"relax.{name}"
    for name in ("exp", "log", "tanh", "sigmoid", "erf", "power", "nn.gelu", "nn.gelu_tanh", "nn.silu")
}
"""Those of `FLOAT_TERMS` whose terms call one of `functions.FORMULAS`."""
