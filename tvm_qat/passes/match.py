"""Small questions that passes ask about expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    Function,
    Var,
    array_of,
    bindings_of,
    is_const,
    operands,
    uses_of,
)


def definition(builder: BlockBuilder, expr: Expr) -> Expr:
    """What a variable of the function being built is bound to; other expressions are themselves."""
    if not isinstance(expr, Var):
        return expr
    bound = builder.lookup_binding(expr)
    return expr if bound is None else definition(builder, bound)


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


class Uses:
    """Whether a variable of the function being built has a single reader.

    Readers are counted in the function as it was; names cannot tell which variable became which,
    since a builder renames. So a visitor shows every binding that it meets.
    """

    def __init__(self, func: Function) -> None:
        self._readers = {var: len(users) for var, users in uses_of(func).items()}
        self._values = {binding.var: binding.value for binding in bindings_of(func)}
        self._origins: dict[Var, set[Var]] = {}

    def see(self, var: Var, value: Expr) -> None:
        """`value` is what the old binding of `var` reads now."""
        self._pair(self._values[var], value)

    def _pair(self, old: Expr, new: Expr) -> None:
        if isinstance(old, Var) and isinstance(new, Var):
            self._origins.setdefault(new, set()).add(old)
        for old_part, new_part in zip(operands(old), operands(new), strict=False):
            self._pair(old_part, new_part)

    def once(self, expr: Expr) -> bool:
        """Variables that no old binding read were made by the visitor, for one reader."""
        origins = self._origins.get(expr, set()) if isinstance(expr, Var) else None
        return origins is not None and sum(self._readers[var] for var in origins) <= 1


def float32(values: Any) -> npt.NDArray[np.float32]:
    return np.asarray(values, np.float32)
