"""Recognizes what is quantized with parameters that the graph computes from the data.

    levels = clip(round(x * (1 / scale)) + zero_point, qmin, qmax)     # dynamic activation, by token
    value = (levels - zero_point) * scale                              # scale: of x's rows

Such a tensor is in float here, and its integers have no grid that folding could carry: a sum of
products needs one scale for all its rows. Nothing is changed; this only says why.
"""

from __future__ import annotations

from tvm_qat.ir import BlockBuilder, Expr, is_const, op_name, shape_of, source_of
from tvm_qat.passes.fold.values import Skip
from tvm_qat.passes.match import definition
from tvm_qat.qnn.params import params_of

_MOVED = ("relax.reshape", "relax.astype", "relax.expand_dims", "relax.squeeze", "relax.broadcast_to")
_SHIFTED = ("relax.add", "relax.subtract")


def at_run_time(builder: BlockBuilder, expr: Expr, role: str) -> Skip | None:
    """Why a float operand is no integer, if its scale is computed at run time; None for others.

    role : what the operand is to its operator, "input" or "weight".
    """
    made = definition(builder, expr)
    while op_name(made) in _MOVED:
        made = definition(builder, made.args[0])
    scale = _scale(builder, made)
    if scale is None:
        return None
    several = any(not isinstance(size, int) or size != 1 for size in shape_of(scale) or ())
    many = ", one for each row" if several else ""
    node = _source(builder, scale)
    by = f" by `{node}`" if node else ""
    return Skip("dynamic", f"the scale of its {role} is computed at run time{by}{many}")


def _scale(builder: BlockBuilder, made: Expr) -> Expr | None:
    """The scale of a dequantization, the dialect's or written out."""
    if op_name(made) == "qnn.dequantize" and params_of(made, "input") is None:
        return made.args[1]
    if op_name(made) != "relax.multiply":
        return None
    for levels, scale in (made.args, reversed(made.args)):
        if not is_const(scale) and _is_rounded(builder, levels):
            return scale
    return None


def _is_rounded(builder: BlockBuilder, expr: Expr) -> bool:
    """Whether `expr` is a rounding behind a clip, either of them shifted by a zero point."""
    clipped = False
    made = definition(builder, expr)
    while op_name(made) in (*_MOVED, *_SHIFTED, "relax.clip"):
        clipped = clipped or op_name(made) == "relax.clip"
        made = definition(builder, made.args[0])
    return clipped and op_name(made) == "relax.round"


def _source(builder: BlockBuilder, scale: Expr) -> str | None:
    """The node that computes a scale; what only moves it is passed over."""
    made = definition(builder, scale)
    while op_name(made) in _MOVED:
        made = definition(builder, made.args[0])
    return source_of(made)
