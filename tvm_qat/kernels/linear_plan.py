"""Decides how a fused convolution, dense or matmul runs: operands, zero points, packing, blocking."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Shape, Var, array_of, const, dtype_of, is_const, op_name, shape_of
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import packing
from tvm_qat.kernels.blocking import (
    Blocking,
    choose_blocking,
    depthwise_blocking,
    dot_blocking,
    dot_depthwise_blocking,
)
from tvm_qat.kernels.builder import Symbols
from tvm_qat.kernels.depthwise_layout import (
    channels_in_order,
    outputs_of_window,
    pack_dot_depthwise,
)
from tvm_qat.kernels.dot_borders import skips_borders
from tvm_qat.kernels.dot_ring import passes_over_columns, ring_parts
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear_spec import LinearSpec, conv_spec, rows_spec
from tvm_qat.kernels.loops import product, static_work
from tvm_qat.kernels.narrowing import can_pack
from tvm_qat.kernels.operands import Operand, Operands, is_one
from tvm_qat.kernels.terms import Term, constant, run_time_parameter
from tvm_qat.qnn.arithmetic import Array


@dataclass(frozen=True)
class LinearPlan:
    """A kernel before its loops.

    initial : start of an accumulator; site.index is the position among the blocks' channels.
    zero, kernel_zero : zero points that the loops must handle; None where nothing is left to do.
    lead : leading axes of a batched product, else empty.
    packs : a depthwise epilogue reads its constants in the order of `depthwise_layout`.
    ring : see `dot_ring.ring_parts`; None where there are none.
    """

    fused: Fused
    spec: LinearSpec
    blocking: Blocking
    operands: tuple[Operand, ...]
    weight: Operand
    term: Term
    initial: Term
    zero: Term | None
    kernel_zero: Term | None
    depthwise: bool
    constant_weight: bool
    lead: Shape
    isa: DotProduct | None = None
    packs: bool = False
    ring: Operand | None = None

    @property
    def data(self) -> Operand:
        return self.operands[0]

    @property
    def flips(self) -> bool:
        """Whether the loops read a copy of the activations with their sign bits flipped."""
        return self.isa is not None and self.isa.flips(self.data.dtype)

    @property
    def moved(self) -> int:
        """What those of the copy are higher."""
        return 0 if self.isa is None else self.isa.moves(self.data.dtype)

    @property
    def skips_borders(self) -> bool:
        """Whether taps beyond the border are passed over; depthwise kernels do that in their own way."""
        zeros = self.zero is None and not self.flips and self.constant_weight and self.spec.needs_padding
        return zeros and self.isa is not None and not self.depthwise and skips_borders(self.spec, self.isa)

    @property
    def copies(self) -> bool:
        """Whether the loops read a copy of the activations: padded, channels-last, in their own dtype."""
        spec = self.spec
        if self.depthwise and self.isa is not None:
            return self.flips or spec.axes[0].needs_padding or any(axis.spread > 1 for axis in spec.axes)
        padded = spec.needs_padding and not self.skips_borders
        return padded or not spec.channels_last or self.flips


def plan_linear(fused: Fused, target: Any, symbols: Symbols, isa: DotProduct | None = None) -> LinearPlan:
    """isa : one that `suits_dot`, or None for the plain kernel."""
    spec, lead = spec_of(fused, symbols)
    call, operands = fused.anchor, Operands()
    data = operands.tensor(fused.origin(call.args[0])[0])
    constant_weight = is_const(call.args[1]) and is_const(call.args[3]) and not lead
    depthwise = spec.depthwise and constant_weight and spec.channels_last
    blocking = _blocking(target, spec, depthwise, isa)
    lanes = 1 if depthwise else blocking.channels
    bias, carried = fused.split_bias(channel_axis(fused, spec))
    zero, ring = zero_point_term(fused, 2, operands), None
    if constant_weight:
        weights = packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3]))
        weight, kernel_zero = operands.tensor(const(_packed(spec, weights, lanes, depthwise, isa))), None
        # A flipped sign bit moves the activations by 128, and so their zero point.
        moved = 0 if isa is None else isa.moves(data.dtype)
        order = channels_in_order(spec.groups, isa) if depthwise and isa is not None else slice(None)
        initial = initial_term(spec, lanes, bias, weights, call.args[2], zero, operands, moved, order)
        operands.accumulator_bound = greatest_sum(weights, call.args[2], bias, data.dtype)
        if isa is not None and (zero is not None or moved) and passes_over_columns(spec, isa):
            known = int(array_of(call.args[2]).reshape(())) + moved
            ring = operands.tensor(const(ring_parts(spec, weights, known, lanes, isa)), indexed=True)
    else:
        weight = operands.tensor(fused.origin(call.args[1])[0])
        kernel_zero = zero_point_term(fused, 3, operands)
        initial = vector_term(bias, spec, lanes, operands)
        if isa is not None:
            worst = np.full((1, 1, spec.inner), np.iinfo(np.int8).min)
            operands.accumulator_bound = greatest_sum(worst, call.args[2], bias, data.dtype)
    operands.accumulator_bound = bound_after(fused, carried, operands.accumulator_bound)
    own = [operand.name for operand in operands.all()]
    term = fused.term(operands, carried)
    read, packs = tuple(operands.all()), False
    if depthwise and isa is not None and can_pack(isa, term):
        ordered = [o if o.name in own else _in_order(o, spec, isa) for o in read]
        if None not in ordered:
            read, packs = tuple(o for o in ordered if o is not None), True
    return LinearPlan(
        fused, spec, blocking, read, weight, term, initial, zero, kernel_zero,
        depthwise, constant_weight, lead, isa, packs, ring,
    )  # fmt: skip


def _in_order(operand: Operand, spec: LinearSpec, isa: DotProduct) -> Operand | None:
    """What the epilogue reads, by position instead of channel; None where that cannot be."""
    if operand.indexed or all(is_one(size) for size in operand.shape):
        return operand
    if not is_const(operand.value) or not all(is_one(size) for size in operand.shape[:-1]):
        return None
    values = array_of(operand.value).reshape(-1)[channels_in_order(spec.groups, isa)]
    return replace(operand, shape=values.shape, value=const(values))


def bound_after(fused: Fused, carried: Var, bound: int | None) -> int | None:
    """Bound of the int32 sum where the epilogue shifts it and adds constants; None for other additions."""
    for var, call in fused.calls.items():
        name = op_name(call)
        if bound is None or var.same_as(carried) or name not in ("relax.add", "relax.left_shift"):
            continue
        if dtype_of(call) != "int32" or not is_const(call.args[1]):
            return None
        greatest = int(np.abs(array_of(call.args[1]).astype(np.int64)).max(initial=0))
        bound = bound + greatest if name == "relax.add" else bound << greatest
    return bound


def _blocking(target: Any, spec: LinearSpec, depthwise: bool, isa: DotProduct | None) -> Blocking:
    if depthwise:
        outputs = outputs_of_window(spec)
        return depthwise_blocking(target) if isa is None else dot_depthwise_blocking(isa, outputs)
    if isa is None:
        return choose_blocking(target, spec.outer)
    sizes = [axis.out for axis in spec.axes]
    rows = static_work(sizes if spec.is_plain else sizes[2:])
    return dot_blocking(isa, spec, rows, _has_short_rows(spec, isa))


def _has_short_rows(spec: LinearSpec, isa: DotProduct) -> bool:
    """Whether the activations of one tap are too few, or no whole steps, for a loop of their own."""
    taps = product(spec.kernel[:2]) if spec.merges_columns else product(spec.kernel)
    whole, rest = divmod(spec.run, isa.reach)
    return taps != 1 and (rest != 0 or whole < 2 * isa.unroll)


def _packed(spec: LinearSpec, weights: Array, lanes: int, depthwise: bool, isa: DotProduct | None) -> Array:
    if depthwise:
        return packing.pack_depthwise(weights) if isa is None else pack_dot_depthwise(spec, weights, isa)
    return packing.pack(weights, lanes) if isa is None else packing.pack_dot(spec, weights, lanes, isa)


def greatest_sum(weights: Array, zero_point: Any, bias: Array | None, dtype: str) -> int | None:
    """Greatest absolute value of the sum with its bias, for any data; None if that is not known."""
    if not is_const(zero_point):
        return None
    limits, zero = np.iinfo(dtype), int(array_of(zero_point).reshape(()))
    reach = max(int(limits.max) - zero, zero - int(limits.min))
    most = (
        int(np.abs(weights).reshape(weights.shape[0] * weights.shape[1], -1).sum(axis=1).max(initial=0))
        * reach
    )
    return most + (0 if bias is None else int(np.abs(bias.astype(np.int64)).max(initial=0)))


def spec_of(fused: Fused, symbols: Symbols) -> tuple[LinearSpec, Shape]:
    """The description, and the leading axes of a batched product (empty for all others)."""
    call = fused.anchor
    data, out = symbols.shape(shape_of(call.args[0]) or ()), symbols.shape(fused.shape)
    if "conv" in fused.op:
        return conv_spec(call, data, out), ()
    weight = symbols.shape(shape_of(call.args[1]) or ())
    if min(len(data), len(weight)) < 2 and fused.op != "qnn.dense":
        raise _refused(fused, "a product with a vector is not supported", "reshape it to a matrix")
    if fused.op == "qnn.dense":
        return rows_spec(product(data[:-1]), weight[1], weight[0], "OI"), ()
    inner, outer = weight[-2:]
    if all(is_one(size) for size in weight[:-2]) and len(data) >= len(weight):
        return rows_spec(product(data[:-1]), inner, outer, "IO"), ()
    return replace(rows_spec(data[-2], inner, outer, "IO"), batch=product(out[:-2])), out[:-2]


def _refused(fused: Fused, reason: str, remedy: str | None = None) -> UnsupportedError:
    return UnsupportedError(located(f"{fused.op}: {reason}", node=fused.source, remedy=remedy))


def channel_axis(fused: Fused, spec: LinearSpec) -> int:
    """Of the result."""
    return spec.data_layout.index("C") if "conv" in fused.op else len(fused.shape) - 1


def zero_point_term(fused: Fused, argument: int, operands: Operands) -> Term | None:
    """A zero point of the anchor, None where it is the constant 0."""
    value = fused.anchor.args[argument]
    if is_const(value):
        values = array_of(value)
        if not np.any(values):
            return None
        if values.size > 1:
            raise _refused(fused, "a weight computed at run time has one zero point per channel")
    return run_time_parameter(value, operands)


def initial_term(
    spec: LinearSpec, lanes: int, bias: Array | None, weights: Array, zero_point: Any,
    zero: Term | None, operands: Operands, moved: int = 0, order: Any = slice(None),
) -> Term:  # fmt: skip
    """bias - zero_point * sum of weights, folded at compile time where the zero point is known."""
    sums = packing.channel_sums(weights)
    start = np.zeros_like(sums) if bias is None else np.broadcast_to(bias.astype(np.int64), sums.shape)
    if is_const(zero_point):
        known_zero = int(array_of(zero_point).reshape(())) + moved
        return vector_term(start - known_zero * sums, spec, lanes, operands, order)
    assert zero is not None
    known, scaled = (vector_term(values, spec, lanes, operands, order) for values in (start, sums))
    return lambda site: ex.wrapping_subtract(known(site), zero(site) * scaled(site))


def vector_term(
    values: Array | None, spec: LinearSpec, lanes: int, operands: Operands, order: Any = slice(None)
) -> Term:
    """Values per output channel, in the order of blocks of `lanes`; `order` rearranges that."""
    if values is None or not np.any(values):
        return lambda _site: ex.int32(0)
    full = np.broadcast_to(values, (spec.groups * spec.outer,))
    return constant(packing.pack_vector(full, spec, lanes)[order], operands)
