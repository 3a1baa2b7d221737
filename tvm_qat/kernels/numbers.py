"""Two readings of one formula: as a TIR expression, and on NumPy arrays.

The formulas of `functions` are written once against `Numbers`, so that the oracle of the tests
(`NumPyNumbers`) and the compiled code (`TirNumbers`) cannot drift apart. Each operation rounds once
to its dtype in both: NumPy computes them one by one, and TIR expressions are fenced
(`strict_float`).
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from tvm_qat.ir import tvm
from tvm_qat.kernels import expressions as ex

_tir = tvm.tirx

Number = Any
"""A TIR expression or a NumPy array; both have the operators of Python."""


class Numbers(Protocol):
    """What formulas need besides + - * / and comparisons."""

    def of(self, value: float, dtype: str = "float32") -> Number:
        """A constant."""

    def named(self, x: Number) -> Number:
        """x, a number, computed once however often the result is used."""

    def fence(self, x: Number) -> Number:
        """x, combined with nothing that follows."""

    def cast(self, x: Number, dtype: str) -> Number:
        """x converted; floats to integers by truncation."""

    def bits(self, x: Number, dtype: str) -> Number:
        """The bits of x as another dtype of the same width."""

    def select(self, condition: Number, yes: Number, no: Number) -> Number:
        """yes where the condition holds, no elsewhere."""

    def both(self, x: Number, y: Number) -> Number:
        """Whether both conditions hold."""

    def equal(self, x: Number, y: Number) -> Number:
        """Whether x == y."""

    def differ(self, x: Number, y: Number) -> Number:
        """Whether x != y."""

    def shift_left(self, x: Number, by: int) -> Number:
        """x of an integer dtype; bits that leave it are lost."""

    def shift_right(self, x: Number, by: int) -> Number:
        """The same, arithmetic: the sign is kept."""

    def masked(self, x: Number, mask: int) -> Number:
        """Bitwise and."""

    def magnitude(self, x: Number) -> Number:
        """x without its sign."""


class TirNumbers:
    """Numbers of one expression, scalars or vectors; `closed` binds what `named` collected around it.

    Named floats pass through a fence that is not declared pure: TVM's analyzer would otherwise
    expand each name in every other, which takes exponential time. Integers are left to LLVM.
    """

    def __init__(self, lanes: int) -> None:
        self._lanes = f"x{lanes}" if lanes > 1 else ""
        self._bound: list[tuple[Any, Any]] = []

    def of(self, value: float, dtype: str = "float32") -> Number:
        return _tir.const(value, dtype + self._lanes)

    def named(self, x: Number) -> Number:
        dtype = str(x.ty.dtype)
        if not dtype.startswith("float"):
            return x
        var = _tir.Var(f"v{len(self._bound)}", dtype)
        self._bound.append((var, _opaque(x, dtype)))
        return var

    def closed(self, result: Number) -> Number:
        for var, value in reversed(self._bound):
            result = _tir.Let(var, value, result)
        return result

    def fence(self, x: Number) -> Number:
        return ex.fence(x)

    def cast(self, x: Number, dtype: str) -> Number:
        return ex.cast(x, dtype + self._lanes)

    def bits(self, x: Number, dtype: str) -> Number:
        return _tir.reinterpret(dtype + self._lanes, x)

    def select(self, condition: Number, yes: Number, no: Number) -> Number:
        return _tir.Select(condition, yes, no)

    def both(self, x: Number, y: Number) -> Number:
        return _tir.And(x, y)

    def equal(self, x: Number, y: Number) -> Number:
        return _tir.EQ(x, y)

    def differ(self, x: Number, y: Number) -> Number:
        return _tir.NE(x, y)

    def shift_left(self, x: Number, by: int) -> Number:
        return _tir.shift_left(x, _tir.const(by, str(x.ty.dtype)))

    def shift_right(self, x: Number, by: int) -> Number:
        return _tir.shift_right(x, _tir.const(by, str(x.ty.dtype)))

    def masked(self, x: Number, mask: int) -> Number:
        return _tir.bitwise_and(x, _tir.const(mask, str(x.ty.dtype)))

    def magnitude(self, x: Number) -> Number:
        return _tir.call_llvm_pure_intrin(str(x.ty.dtype), "llvm.fabs", x)


def _opaque(x: Number, dtype: str) -> Number:
    return _tir.call_llvm_intrin(dtype, "llvm.arithmetic.fence", x)


class NumPyNumbers:
    """The same on arrays. Overflow and invalid operations are silent, as in compiled code."""

    def of(self, value: float, dtype: str = "float32") -> Number:
        return np.asarray(value, dtype)[()]

    def named(self, x: Number) -> Number:
        return x

    def fence(self, x: Number) -> Number:
        return x

    def cast(self, x: Number, dtype: str) -> Number:
        return np.asarray(x).astype(dtype)

    def bits(self, x: Number, dtype: str) -> Number:
        return np.asarray(x).view(dtype)

    def select(self, condition: Number, yes: Number, no: Number) -> Number:
        return np.where(condition, yes, no)

    def both(self, x: Number, y: Number) -> Number:
        return np.logical_and(x, y)

    def equal(self, x: Number, y: Number) -> Number:
        return np.equal(x, y)

    def differ(self, x: Number, y: Number) -> Number:
        return np.not_equal(x, y)

    def shift_left(self, x: Number, by: int) -> Number:
        return np.left_shift(x, np.asarray(by, np.asarray(x).dtype))

    def shift_right(self, x: Number, by: int) -> Number:
        return np.right_shift(x, np.asarray(by, np.asarray(x).dtype))

    def masked(self, x: Number, mask: int) -> Number:
        return np.bitwise_and(x, np.asarray(mask, np.asarray(x).dtype))

    def magnitude(self, x: Number) -> Number:
        return np.abs(x)
