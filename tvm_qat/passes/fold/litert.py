"""Where LiteRT's reference kernels have an operator of their own: profile `tflite` of the resolvers.

Where they have not (an operand on a grid that LiteRT would not accept, a function it lacks), the
operator keeps the arithmetic that the other profiles have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.ir import Expr, attrs_of, op_name
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold import functions
from tvm_qat.passes.fold.values import Carried, Pending, plain
from tvm_qat.qnn import build, litert
from tvm_qat.qnn.arithmetic import F32, Array
from tvm_qat.qparams import QParams

Suits = Callable[[QParams, QParams, QParams], bool]

_BINARY: dict[str, Suits] = {
    "add": litert.suits_sum,
    "subtract": litert.suits_sum,
    "multiply": litert.suits_product,
    "maximum": lambda lhs, rhs, output: litert.per_tensor(lhs, rhs, output),
    "minimum": lambda lhs, rhs, output: litert.per_tensor(lhs, rhs, output),
}


def of_two(name: str, lhs: QParams, rhs: QParams, output: QParams, rounding: str) -> str:
    """The rounding of an elementwise operator (`add`, ...) on these grids."""
    suits = _BINARY.get(name) if rounding == "tflite" else None
    return "tflite" if suits is not None and suits(lhs, rhs, output) else "half_even"


def of_sum(name: str, dtype: str) -> str:
    """The rounding of the requantize after a sum of products `name` of `dtype` data.

    LiteRT's FULLY_CONNECTED rounds once, by the matrix library it calls; its other kernels round
    twice, and those of 16-bit data have 64-bit sums, for which there is a formula of its own.
    """
    if name == "qnn.dense":
        return "tflite_single"
    return "tflite_wide" if dtype == "int16" else "tflite"


def of_average(source: QParams, output: QParams, attrs: dict[str, Any], rounding: str) -> str:
    """AVERAGE_POOL has one grid, and counts what lies inside."""
    one_grid = source.same_grid(output) and not attrs["count_include_pad"] and source.dtype != "int32"
    small = int(np.prod(attrs["pool_size"])) <= (1 << 15 if source.dtype in ("int8", "uint8") else 1 << 11)
    return "tflite" if rounding == "tflite" and one_grid and small else "half_even"


def of_mean(source: QParams, output: QParams, is_sum: bool, rounding: str) -> str:
    exact = rounding == "tflite" and not is_sum and source.dtype == output.dtype != "int32"
    return "tflite" if exact else "half_even"


def of_softmax(source: QParams, output: QParams, last: bool, rounding: str) -> str:
    """SOFTMAX runs over the last axis."""
    exact = rounding == "tflite" and last and litert.suits_softmax(source, output)
    return "tflite" if exact else "half_even"


# ---------------------------------------------------------------- functions of one tensor


def _float32(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """`function` of the C library's float32 form: computed in float64 and rounded once."""
    return lambda x: functions.apply(function, x)


def _logistic(x: Array) -> Array:
    return np.asarray(F32(1) / (F32(1) + functions.apply(np.exp, -x)), F32)


_TABLES: dict[str, Callable[[Array], Array]] = {
    "relax.sigmoid": _logistic,
    "relax.tanh": _float32(np.tanh),
    "relax.exp": _float32(np.exp),
    "relax.log": _float32(np.log),
}


def table_of(value: Pending, source: Carried, target: QParams) -> Array | None:
    """The 256 entries of LiteRT's kernel for a pending function of an 8-bit tensor; None if it has none."""
    if source.params.dtype != target.dtype or value.operands[0] is not source:
        return None
    name = op_name(value.call)
    if name in _TABLES:
        return litert.function_table(_TABLES[name], source.params, target)
    if name == "relax.nn.leakyrelu":
        q = litert.every(source.params)
        return litert.leaky_relu(q, source.params, target, float(attrs_of(value.call)["alpha"]))
    return None


def leaky_relu(walk: Walk, value: Pending, target: QParams) -> Expr | None:
    """LEAKY_RELU of int16 with a slope from 0 to 1: the greater of the tensor on two grids.

    LiteRT multiplies by one number from zero up and by a lesser one below; products of the lesser are
    the lesser ones from zero up, and the greater ones below.
    """
    source, slope = value.operands[0], F32(attrs_of(value.call)["alpha"])
    inside = isinstance(source, Carried) and 0 < slope <= 1
    if not inside or source.params.dtype != target.dtype or not litert.per_tensor(source.params, target):
        return None
    applied = plain(walk, source)
    if not isinstance(applied, Carried):
        return None
    scale, steps = F32(source.params.scale), F32(target.scale)
    above, below = (
        source.params.with_(scale=float(F32(quotient / steps)) * float(steps))
        for quotient in (scale, F32(scale * slope))
    )
    q = applied.q
    return walk.emit(build.elementwise("maximum", q, q, above, below, target, "tflite"), value.source)


def product_scale(x: Carried, w: Carried, name: str) -> Array:
    """The scale of the sums of products `name`, float64.

    LiteRT multiplies two scales per tensor in float32 for BATCH_MATMUL and in its uint8
    convolutions, in float64 elsewhere. The other profiles round to float32 anyway.
    """
    scale = np.asarray(x.params.scale * w.params.scale)
    single = name == "qnn.batch_matmul" or (w.params.dtype == "uint8" and name != "qnn.dense")
    single = single and not scale.ndim
    return scale.astype(F32).astype(np.float64) if single else scale
