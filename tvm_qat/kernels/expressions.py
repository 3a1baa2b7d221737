"""The arithmetic of quantized tensors as scalar TIR expressions: `qnn.arithmetic`, repeated.

Every kernel, fused or not, builds its formulas from these, so each formula exists once.

Rounding needs no call into the C library, so that every loop vectorizes on every target:

- half to even, |x| < 2^22: adding 1.5 * 2^23 leaves no bits for a fraction, and the addition
  itself rounds half to even; the last bits of the sum then are the whole number.
- half to even, any x: 2^23 of x's own sign does the same up to 2^23; beyond that every float32
  is whole already.
- the other roundings start from the truncation of x through int32, which is exact because x is
  clamped below 2^31 before it is rounded.

TVM simplifies (x + c) - c to x and x * a + x * b to x * (a + b), for floats too, and LLVM contracts
products that are added. `fence` keeps a value from both: it is no instruction.

`max(x, low)` is `x > low ? x : low` in TVM's LLVM code, so a NaN becomes `low`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm_qat.ir import tvm
from tvm_qat.qnn.arithmetic import LARGEST_INT32_FLOAT

PrimExpr: TypeAlias = Any

_tir = tvm.tirx
_MAGIC = 1.5 * 2.0**23
_MAGIC_BITS = 0x4B400000
_NARROW = ("int8", "uint8", "int16", "uint16")


def cast(x: PrimExpr, dtype: str) -> PrimExpr:
    return _tir.Cast(dtype, x) if str(x.ty.dtype) != dtype else x


def float32(value: float) -> PrimExpr:
    return _tir.FloatImm("float32", value)


def int32(value: int) -> PrimExpr:
    return _tir.IntImm("int32", value)


def fence(x: PrimExpr) -> PrimExpr:
    """x, rounded to its dtype here and combined with nothing that follows."""
    return _tir.call_llvm_pure_intrin(str(x.ty.dtype), "llvm.arithmetic.fence", x)


def unknown(value: int) -> PrimExpr:
    """`value`, int32, of which LLVM does not know what it is."""
    return cast(fence(float32(float(value))), "int32")


def multiply_add(x: PrimExpr, y: PrimExpr, z: PrimExpr) -> PrimExpr:
    """x * y + z, float32, rounded once. One instruction where there is one, else a call of C's fmaf."""
    return _tir.call_llvm_pure_intrin("float32", "llvm.fma", x, y, z)


def _whole(x: PrimExpr) -> PrimExpr:
    """x without its fraction; |x| < 2^31."""
    return cast(cast(x, "int32"), "float32")


def _half_even_narrow(x: PrimExpr, plus: PrimExpr) -> PrimExpr:
    """x rounded to int32, plus an int32: the bits of x + 1.5 * 2^23 count in ones."""
    return _tir.reinterpret("int32", fence(x + float32(_MAGIC))) + (plus - int32(_MAGIC_BITS))


def _half_even_wide(x: PrimExpr) -> PrimExpr:
    big = float32(2.0**23)
    rounded = _tir.Select(x < float32(0), fence(x - big) + big, fence(x + big) - big)
    return _tir.Select(_tir.abs(x) < big, rounded, x)


def _half_away(x: PrimExpr) -> PrimExpr:
    """trunc(x + copysign(0.5 - 2^-25, x)), exact for every |x| < 2^31; x is read twice.

    A tie k + 0.5 comes so near to k + 1 that the sum is rounded to it; below a tie the sum stays
    below k + 1. From 2^22 on, where floats are 0.5 apart or more, the addend rounds to 0.5 or to 0.
    """
    # an intrinsic, not a Select: TVM simplifies what a Select reads once more for each of its branches
    return _whole(x + _tir.call_llvm_pure_intrin("float32", "llvm.copysign", float32(_BELOW_HALF), x))


_BELOW_HALF = 0.5 - 2.0**-25
"""The greatest float32 below one half."""


def floor(x: PrimExpr) -> PrimExpr:
    """Greatest whole number not above x; |x| < 2^31."""
    return _whole(x) - cast(_whole(x) > x, "float32")


def _ceil(x: PrimExpr) -> PrimExpr:
    return _whole(x) + cast(_whole(x) < x, "float32")


def _half_up(x: PrimExpr) -> PrimExpr:
    even = _half_even_wide(x)
    return even + cast(x - even >= float32(0.5), "float32")


def _half_down(x: PrimExpr) -> PrimExpr:
    even = _half_even_wide(x)
    return even - cast(even - x >= float32(0.5), "float32")


def _half_toward_zero(x: PrimExpr) -> PrimExpr:
    step = _tir.Select(x < float32(0), float32(-1), float32(1))
    return _whole(x) + _tir.Select(_tir.abs(x - _whole(x)) > float32(0.5), step, float32(0))


def _away_from_zero(x: PrimExpr) -> PrimExpr:
    return _tir.Select(x < float32(0), floor(x), _ceil(x))


def _sign(x: PrimExpr) -> PrimExpr:
    return _tir.Select(x >= float32(0), float32(1), float32(-1))


_ROUNDINGS: dict[str, Callable[[PrimExpr], PrimExpr]] = {
    "half_even": _half_even_wide,
    "half_away": _half_away,
    "half_up": _half_up,
    "half_down": _half_down,
    "floor": floor,
    "ceil": _ceil,
    "toward_zero": _whole,
    "half_toward_zero": _half_toward_zero,
    "away_from_zero": _away_from_zero,
    "sign": _sign,
}


def round_to_int(x: PrimExpr, rounding: str, dtype: str, plus: PrimExpr | None = None) -> PrimExpr:
    """x, already clamped to the range of `dtype` (shifted by a zero point), as whole int32, plus `plus`."""
    if rounding == "half_even" and dtype in _NARROW:
        return _half_even_narrow(x, int32(0) if plus is None else plus)
    if rounding == "half_even":
        whole = cast(_half_even_wide(x), "int32")
    else:  # These read x several times: in a chain of them the expression would grow with each.
        once = _tir.Var("x", str(x.ty.dtype))
        whole = _tir.Let(once, x, cast(_ROUNDINGS[rounding](once), "int32"))
    return whole if plus is None else whole + plus


def wrapping_add(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    """x + y of int32, or vectors of it, modulo 2^32.

    TVM marks 32-bit arithmetic as free of overflow, signed and unsigned, which lets LLVM assume
    it. Through int64 it is well defined, and LLVM narrows it to the same single instruction.
    """
    lanes = str(x.ty.dtype).removeprefix("int32")
    return cast(cast(x, f"int64{lanes}") + cast(y, f"int64{lanes}"), f"int32{lanes}")


def wrapping_subtract(x: PrimExpr, y: PrimExpr) -> PrimExpr:
    return cast(cast(x, "int64") - cast(y, "int64"), "int32")


def nearest(x: PrimExpr) -> PrimExpr:
    """x rounded half to even, as int32; |x| must be below 2^31. One instruction where there is one."""
    return _tir.call_llvm_pure_intrin("int32", "llvm.lrint", x)


def saturate(
    real: PrimExpr, low: PrimExpr, high: PrimExpr, zero_point: PrimExpr | None, dtype: str, rounding: str
) -> PrimExpr:
    """round(clamp(real, low, high)) + zero_point; low and high are float32 and whole."""
    return cast(round_to_int(_tir.min(_tir.max(real, low), high), rounding, dtype, zero_point), dtype)


def float_bounds(zero_point: PrimExpr, qmin: int, qmax: int) -> tuple[PrimExpr, PrimExpr]:
    """The clamp of `saturate` for a zero point known at run time only."""
    largest = float32(float(LARGEST_INT32_FLOAT))
    shift = cast(zero_point, "int64")
    low = cast(_tir.IntImm("int64", qmin) - shift, "float32")
    high = cast(_tir.IntImm("int64", qmax) - shift, "float32")
    return _tir.max(low, float32(-float(LARGEST_INT32_FLOAT))), _tir.min(high, largest)


def fixed_point_double(
    x: PrimExpr, multiplier: PrimExpr, left: PrimExpr | None, right: PrimExpr | None, some_exact: bool
) -> PrimExpr:
    """LiteRT's requantization with two roundings; x int32, the others int64, shifts at least 0.

    The doubling high product rounds half away from zero by truncating p + nudge, nudge = 2^30 or
    1 - 2^30 by the sign of p. Both cases equal (p + 2^30) >> 31: for p < 0 truncation adds
    2^31 - 1 before the arithmetic shift, and 1 - 2^30 + 2^31 - 1 = 2^30.
    The division by 2^right rounds half away from zero: one less than half is added below zero, and
    nothing where right is 0.

    left, right : None where they are 0 everywhere. some_exact : whether `right` may be 0. All in
    64 bits, where no sum overflows and vectors have every operation. A left shift wraps in int32.
    """
    if left is not None:
        x = _tir.shift_left(x, cast(left, "int32"))
    one = _tir.IntImm("int64", 1)
    product = cast(x, "int64") * multiplier + _tir.IntImm("int64", 1 << 30)
    high = _tir.shift_right(product, _tir.IntImm("int64", 31))
    if right is None:
        return cast(high, "int32")
    var = _tir.Var("high", str(high.ty.dtype))
    half = _tir.shift_right(_tir.shift_left(one, right), one)
    below = _tir.shift_right(var, _tir.IntImm("int64", 63))
    if some_exact:
        below = _tir.bitwise_and(below, _tir.IntImm("int64", 0) - half)
        below = _tir.max(below, _tir.IntImm("int64", -1))
    return cast(_tir.Let(var, high, _tir.shift_right(var + half + below, right)), "int32")


def fixed_point_single(x: PrimExpr, multiplier: PrimExpr, shift: PrimExpr, half: PrimExpr) -> PrimExpr:
    """The same with one rounding, half up: (x * multiplier + half) >> shift; result int64."""
    product = cast(x, "int64") * cast(multiplier, "int64")
    return _tir.shift_right(product + half, shift)


def fixed_point_away(x: PrimExpr, multiplier: PrimExpr, shift: PrimExpr, half: PrimExpr) -> PrimExpr:
    """One rounding, half away from zero: a negative tie is kept from reaching the next integer."""
    product = cast(x, "int64") * cast(multiplier, "int64")
    return _tir.shift_right(product + half - cast(x < int32(0), "int64"), shift)
