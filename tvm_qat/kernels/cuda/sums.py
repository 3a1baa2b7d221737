"""Decides how a GPU adds products: operands, zero points, and one of three kernels.

    products        8-bit data and weights, no groups: by tensor cores, or by dp4a before sm_80
    depthwise       by dp4a, four channels a thread (`products`)
    plain           all else, one thread a sum (`plain_sums`)

The zero point of the data leaves the loops as on a CPU: sum (x - zx) * w = sum x * w - zx * sum w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.ir import Shape, array_of, const, dtype_of, is_const
from tvm_qat.kernels import packing
from tvm_qat.kernels.builder import Symbols
from tvm_qat.kernels.cuda.symbols import GpuSymbols
from tvm_qat.kernels.cuda.threads import require_countable
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear_plan import (
    bound_after,
    channel_axis,
    greatest_sum,
    initial_term,
    spec_of,
    vector_term,
    zero_point_term,
)
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.operands import Operand, Operands
from tvm_qat.kernels.terms import Term
from tvm_qat.qnn.arithmetic import Array

_BYTES = ("int8", "uint8")


@dataclass(frozen=True)
class SumsPlan:
    """symbols : of the kernel's sizes. weights : centred [groups, outer, D, H, W, inner]; None where they
    are known at run time only.
    weight : the operand that holds them, in the layout of the kernel. initial : what the sum begins
    with; site.index is the output channel. zero, kernel_zero : zero points that are left for the loops
    to handle, None for 0. lead : leading axes of a batched product. padding : zero point of the data.
    """

    fused: Fused
    symbols: GpuSymbols
    spec: LinearSpec
    lead: Shape
    operands: tuple[Operand, ...]
    weight: Operand
    weights: Array | None
    term: Term
    initial: Term
    zero: Term | None
    kernel_zero: Term | None
    padding: int

    @property
    def data(self) -> Operand:
        return self.operands[0]


def suits_products(fused: Fused) -> bool:
    """Bytes, known zero points, no groups, at most two spatial axes."""
    call = fused.anchor
    if dtype_of(call.args[0]) not in _BYTES or not is_const(call.args[2]):
        return False
    spec, lead = spec_of(fused, Symbols())
    if not _is_flat(spec) or spec.groups != 1:
        return False
    if not lead and is_const(call.args[1]) and is_const(call.args[3]):
        return _fits_int8(packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3])))
    one_zero_point = is_const(call.args[3]) and array_of(call.args[3]).size == 1
    return "conv" not in fused.op and dtype_of(call.args[1]) in _BYTES and one_zero_point


def suits_depthwise(fused: Fused) -> bool:
    """Depthwise convolutions of bytes."""
    call = fused.anchor
    if dtype_of(call.args[0]) not in _BYTES or not all(is_const(call.args[i]) for i in (1, 2, 3)):
        return False
    spec, _ = spec_of(fused, Symbols())
    if not (spec.depthwise and _is_flat(spec)):
        return False
    return _fits_int8(packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3])))


def _is_flat(spec: LinearSpec) -> bool:
    """Channels last, no third axis, no zeros between pixels."""
    return spec.channels_last and spec.axes[0].is_plain and all(axis.spread == 1 for axis in spec.axes)


def _fits_int8(weights: Array) -> bool:
    return bool(weights.min(initial=0) >= -128 and weights.max(initial=0) <= 127)


def plan_sums(fused: Fused, layout: Any) -> SumsPlan:
    """layout : (spec, centred weights) -> the array that the kernel reads."""
    symbols = GpuSymbols()
    spec, lead = spec_of(fused, symbols)
    call, operands = fused.anchor, Operands()
    data = operands.tensor(fused.origin(call.args[0])[0])
    bias, carried = fused.split_bias(channel_axis(fused, spec))
    zero, weights, kernel_zero = zero_point_term(fused, 2, operands), None, None
    if is_const(call.args[1]) and is_const(call.args[3]) and not lead:
        weights = packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3]))
        weight = operands.tensor(const(layout(spec, weights)), indexed=True)
        initial = initial_term(spec, 1, bias, weights, call.args[2], zero, operands)
        operands.accumulator_bound = greatest_sum(weights, call.args[2], bias, data.dtype)
    else:
        weight = operands.tensor(fused.origin(call.args[1])[0])
        kernel_zero = zero_point_term(fused, 3, operands)
        initial = vector_term(bias, spec, 1, operands)
        if is_const(call.args[3]) and dtype_of(call.args[1]) in _BYTES and isinstance(spec.inner, int):
            reach = _reach(dtype_of(call.args[1]), array_of(call.args[3]))
            worst = np.full((1, 1, spec.inner), reach, np.int64)
            operands.accumulator_bound = greatest_sum(worst, call.args[2], bias, data.dtype)
    operands.accumulator_bound = bound_after(fused, carried, operands.accumulator_bound)
    term = fused.term(operands, carried)
    require_countable(fused, fused.shape, *(operand.shape for operand in operands.all()))
    padding = int(array_of(call.args[2]).reshape(-1)[0]) if is_const(call.args[2]) else 0
    return SumsPlan(
        fused, symbols, spec, lead, tuple(operands.all()), weight, weights,
        term, initial, zero, kernel_zero, padding,
    )  # fmt: skip


def _reach(dtype: str, zero_point: Array) -> int:
    limits = np.iinfo(dtype)
    return int(max(limits.max - zero_point.min(), zero_point.max() - limits.min))
