"""Small questions that passes ask about expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import BlockBuilder, Expr, Function, Var, array_of, is_const, op_name, uses_of


def definition(builder: BlockBuilder, expr: Expr) -> Expr:
    """What a variable of the function being built is bound to; other expressions are themselves."""
    if not isinstance(expr, Var):
        return expr
    bound = builder.lookup_binding(expr)
    return expr if bound is None else definition(builder, bound)


def is_call_of(expr: Expr, *names: str) -> bool:
    return op_name(expr) in names


def scalar(expr: Expr) -> float | None:
    """The value of a constant with one element, else None."""
    if not is_const(expr):
        return None
    values = array_of(expr)
    return float(values.reshape(())) if values.size == 1 else None


def channel_vector(values: npt.NDArray[Any], axis: int, rank: int) -> npt.NDArray[Any] | None:
    """`values` as shape () or (n,) if broadcasting it to rank `rank` varies along `axis` only."""
    if values.size == 1:
        return values.reshape(())
    if values.ndim > rank:
        return None
    padded = values.reshape((1,) * (rank - values.ndim) + values.shape)
    return padded.reshape(-1) if padded.shape[axis] == padded.size else None


def count_uses(func: Function) -> dict[Var, int]:
    """How often each variable is read."""
    return {var: len(users) for var, users in uses_of(func).items()}


def float32(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)
