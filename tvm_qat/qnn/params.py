"""Between QParams and the operands and attributes of a call: written and read only here.

A role is the prefix of a pair of operands: `output_scale`, `output_zero_point`. The axis of a
role is the attribute `<role>_axis`; absent per tensor.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.ir import Expr, array_of, attrs_of, const, dtype_of, is_const
from tvm_qat.qnn.table import OPS, argument
from tvm_qat.qparams import QParams


def operands_of(params: QParams) -> tuple[Expr, Expr]:
    """(scale, zero_point) as constants: float32 where that is exact, else float64; int32."""
    narrow = params.scale.astype(np.float32)
    exact = np.array_equal(narrow.astype(np.float64), params.scale)
    return const(narrow if exact else params.scale), const(params.zero_point, "int32")


def attributes_of(role: str, params: QParams) -> dict[str, Any]:
    """The attributes that describe `role`; for the output also its dtype and range."""
    attrs: dict[str, Any] = {} if params.axis is None else {f"{role}_axis": params.axis}
    if role == "output":
        attrs |= {"out_dtype": params.dtype, "qmin": params.qmin, "qmax": params.qmax}
    return attrs


def params_of(call: Expr, role: str) -> QParams | None:
    """The QParams of a role, or None if they are computed at run time.

    Input roles take their dtype from the operand they describe.
    """
    spec = OPS[call.op.name]
    scale = call.args[argument(spec.name, f"{role}_scale")]
    zero_point = call.args[argument(spec.name, f"{role}_zero_point")]
    if not (is_const(scale) and is_const(zero_point)):
        return None
    attrs = attrs_of(call)
    extent: dict[str, Any] = {"axis": attrs.get(f"{role}_axis")}
    if role == "output":
        extent |= {"dtype": attrs["out_dtype"], "qmin": attrs["qmin"], "qmax": attrs["qmax"]}
    else:
        extent["dtype"] = dtype_of(call.args[_described(role)])
    return QParams(array_of(scale), array_of(zero_point), **extent)


def _described(role: str) -> int:
    return 1 if role in ("rhs", "kernel", "y") else 0


def concat_params(call: Expr) -> list[QParams]:
    """The QParams of each part of a qnn.concatenate."""
    parts, scales, zero_points = (call.args[i] for i in range(3))
    return [
        QParams(array_of(s), array_of(z), dtype_of(part))
        for part, s, z in zip(_fields(parts), _fields(scales), _fields(zero_points), strict=True)
    ]


def _fields(tuple_expr: Expr) -> list[Expr]:
    return list(tuple_expr.fields)
