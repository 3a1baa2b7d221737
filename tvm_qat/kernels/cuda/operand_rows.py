"""The operands of products as the templates of `device/` read them (`operands.cuh`): C++ values made in TIR.

    QatMatrix<64, kQatAny, 512, 1, 16>(64, n, 512, 1)

What is known is in the type, so that it costs nothing at run time; the rest are arguments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tvm_qat.ir import shape_of, tvm
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Symbols
from tvm_qat.kernels.cuda.sums import SumsPlan
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.operands import is_one

_tir = tvm.tirx

CHUNK = 16
"""Bytes that a thread copies at once, at most."""


def left_rows(plan: SumsPlan, rows: Any) -> PrimExpr:
    """The data."""
    spec = plan.spec
    if "conv" in plan.fused.op and not spec.is_plain:
        return pixels_under_taps(plan)
    if not plan.lead:
        return _matrix(rows, spec.inner, spec.inner, 1, [])
    *batch, row, inner = strides(plan.fused, plan.symbols, 0)
    return _matrix(rows, spec.inner, row, inner, batch)


def right_rows(plan: SumsPlan, columns: Any) -> PrimExpr:
    """The weights, or the other tensor."""
    if plan.weights is not None:
        depth = plan.weight.shape[-1]
        return _matrix(columns, depth, depth, 1, [])
    *batch, column, inner = _of_right(plan.fused, plan.symbols, plan.spec)
    return _matrix(columns, plan.spec.inner, column, inner, batch)


def right_follows(fused: Fused, symbols: Symbols, spec: LinearSpec) -> bool:
    """Whether weights that are known at run time follow one another along the depth."""
    step = _of_right(fused, symbols, spec)[-1]
    return isinstance(step, int) and step == 1


def _of_right(fused: Fused, symbols: Symbols, spec: LinearSpec) -> list[Any]:
    """Strides of weights that are known at run time: leading axes, columns, depth."""
    *batch, first, second = strides(fused, symbols, 1)
    return [*batch, first, second] if spec.kernel_layout == "OI" else [*batch, second, first]


def strides(fused: Fused, symbols: Symbols, side: int) -> list[Any]:
    """Elements between neighbours along the axes of an operand of the anchor, 0 where it has one only."""
    origin, axes = fused.origin(fused.anchor.args[side])
    sizes = symbols.shape(shape_of(origin) or ())
    steps: list[Any] = [0] * len(sizes)
    step: Any = 1
    for axis in reversed(range(len(sizes))):
        steps[axis] = 0 if is_one(sizes[axis]) else step
        step = step * sizes[axis]
    return [steps[axis] for axis in (axes or range(len(sizes)))]


def pixels_under_taps(plan: SumsPlan) -> PrimExpr:
    """The input of a convolution."""
    spec = plan.spec
    _, height, width = spec.axes
    channels = spec.groups * spec.inner
    fixed = (
        channels, height.kernel, width.kernel, height.stride, width.stride, height.dilation, width.dilation,
        height.before, width.before, _width(channels), plan.padding,
    )  # fmt: skip
    return _value("QatPixels", (spec.batch, height.size, width.size, height.out, width.out), fixed)


def _matrix(rows: Any, depth: Any, stride: Any, step: Any, others: list[Any]) -> PrimExpr:
    return _value("QatMatrix", (rows, depth, stride, step), (_unit(depth, stride, step, others),))


def _unit(depth: Any, stride: Any, step: Any, others: list[Any]) -> int:
    """Bytes of a row that are copied at once. others : strides of the axes that lead to the matrix;
    copies must begin at whole units."""
    units = [_factor(size) for size in (depth, stride, *others)]
    neighbours = (isinstance(step, int) and step == 1) or (isinstance(depth, int) and depth == 1)
    return _width(math.gcd(*units)) if neighbours else 1


def _value(name: str, sizes: Sequence[Any], fixed: Sequence[int]) -> PrimExpr:
    texts = [str(size) if isinstance(size, int) else "kQatAny" for size in sizes]
    given = [ex.int32(size) if isinstance(size, int) else size for size in sizes]
    return _tir.call_extern("int32", f"{name}<{', '.join([*texts, *map(str, fixed)])}>", *given)


def _factor(size: Any) -> int:
    """A number that divides the size, whatever its variables are."""
    if isinstance(size, _tir.Mul):
        return _factor(size.a) * _factor(size.b)
    return int(size) if isinstance(size, int | _tir.IntImm) else 1


def _width(unit: int) -> int:
    """Bytes that are copied at once; TVM's tensors begin at multiples of 64."""
    width = math.gcd(unit, CHUNK)
    return width if width >= 4 else 1
