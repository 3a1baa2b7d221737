"""Values of which a graph of whole numbers shows that they are whole, and how wide.

    y = clip(astype(integers, float32), 0, 255)   ->   fake_quantize(y, step 1, 0..255)
    y = floor(x), x between -7.5 and 40           ->   fake_quantize(y, step 1, -8..40)

No number changes: the fake quantization only says which grid they lie on.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np

from tvm_qat.ir import BlockBuilder, Expr, Var, array_of, attrs_of, dtype_of, is_const, op_name
from tvm_qat.qnn import build
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import STORAGE_RANGE, QParams

Interval: TypeAlias = tuple[float, float]

ONE = np.float64(1)
STORED = ("int8", "uint8", "int16")
_KEEPING = (
    "relax.nn.max_pool2d", "relax.reshape", "relax.permute_dims", "relax.squeeze", "relax.expand_dims",
    "relax.flatten",
)  # fmt: skip


def said_whole(builder: BlockBuilder, value: Expr) -> Expr:
    """`value`, fake-quantized where it is known to be whole and to fit 16 bits."""
    call = _made(builder, value)
    if op_name(call) not in ("relax.clip", "relax.floor") or dtype_of(value) != "float32":
        return value
    found = interval(builder, value) if _is_whole(builder, call) else None
    if found is None or not all(bound == math.floor(bound) for bound in found):
        return value
    low, high = (int(bound) for bound in found)
    fitting = [d for d in STORED if STORAGE_RANGE[d][0] <= low < high <= STORAGE_RANGE[d][1]]
    if not fitting:
        return value
    return builder.emit(build.fake_quantize(value, QParams(ONE, dtype=fitting[0], qmin=low, qmax=high)))


def _made(builder: BlockBuilder, expr: Expr) -> Expr:
    bound = builder.lookup_binding(expr) if isinstance(expr, Var) else None
    return expr if bound is None else bound


def _is_whole(builder: BlockBuilder, call: Expr) -> bool:
    """What was floored, or cast from integers and then clipped."""
    if op_name(call) == "relax.floor":
        return True
    cast = _made(builder, call.args[0])
    return op_name(cast) == "relax.astype" and dtype_of(cast.args[0]).startswith(("int", "uint"))


def interval(builder: BlockBuilder, expr: Expr) -> Interval | None:
    """Least and greatest real value that a float expression can have; None if that is not known."""
    call = _made(builder, expr)
    name = op_name(call)
    if name in ("qnn.fake_quantize", "qnn.dequantize"):
        params = params_of(call, "output" if name == "qnn.fake_quantize" else "input")
        low, high = params.range if params is not None and params.scale == ONE else (0, 0)
        return (float(low), float(high)) if low < high else None
    if name == "relax.clip":
        least, most = (getattr(bound, "value", None) for bound in call.args[1:])
        return None if least is None or most is None or least >= most else (float(least), float(most))
    if name in _KEEPING:
        return interval(builder, call.args[0])
    if name in ("relax.nn.avg_pool2d", "relax.nn.pad"):
        inner = interval(builder, call.args[0])
        filled = attrs_of(call)["pad_value"] if name == "relax.nn.pad" else 0.0
        return None if inner is None else (min(inner[0], filled), max(inner[1], filled))
    if name == "relax.floor":
        inner = interval(builder, call.args[0])
        return None if inner is None else (math.floor(inner[0]), math.floor(inner[1]))
    return _of_two(builder, call) if name in ("relax.add", "relax.multiply", "relax.divide") else None


def _of_two(builder: BlockBuilder, call: Expr) -> Interval | None:
    """Sums of two tensors, and a tensor times or by constants."""
    sides = [_constant(arg) if is_const(arg) else interval(builder, arg) for arg in call.args]
    first, second = sides
    if first is None or second is None:
        return None
    if op_name(call) == "relax.add":
        return first[0] + second[0], first[1] + second[1]
    if op_name(call) == "relax.divide":
        if second[0] <= 0 <= second[1]:
            return None
        second = (1 / second[1], 1 / second[0])
    products = [a * b for a in first for b in second]
    return min(products), max(products)


def _constant(expr: Expr) -> Interval | None:
    values = array_of(expr).astype(np.float64)
    return (float(values.min()), float(values.max())) if values.size and np.all(np.isfinite(values)) else None
