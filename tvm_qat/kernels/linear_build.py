"""From a fused convolution, dense or matmul to its kernel: operands, zero points, layout, blocking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tvm_qat.errors import UnsupportedError, located
from tvm_qat.ir import Shape, array_of, const, is_const, shape_of
from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels import packing
from tvm_qat.kernels.blocking import Blocking, choose_blocking, depthwise_blocking
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, tb, view
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear import Coordinates, DepthwiseBody, LinearBody, Source
from tvm_qat.kernels.linear_spec import LinearSpec, conv_spec, rows_spec
from tvm_qat.kernels.loops import decode, product
from tvm_qat.kernels.operands import Operand, Operands, Site, broadcast_index, is_one
from tvm_qat.kernels.padding import packed_weights, padded_activations
from tvm_qat.kernels.terms import Term, constant, run_time_scalar
from tvm_qat.qnn.arithmetic import Array


@dataclass(frozen=True)
class _Plan:
    """A kernel before its loops.

    initial : start of an accumulator; site.index is the position among the blocks' channels.
    zero, kernel_zero : zero points that the loops must handle; None where nothing is left to do.
    lead : leading axes of a batched product, else empty.
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

    @property
    def data(self) -> Operand:
        return self.operands[0]


def build_linear(fused: Fused, target: Any) -> Kernel:
    """The plain kernel of any operator of kind `linear`."""
    symbols = Symbols()
    plan = _plan(fused, target, symbols)
    emit = _emit_rows if _runs_as_rows(plan) else _emit_general

    def body(buffers: dict[str, Any], output: Any) -> None:
        emit(plan, buffers, output)

    return prim_func(fused.name, symbols, plan.operands, fused.shape, fused.dtype, body)


def _plan(fused: Fused, target: Any, symbols: Symbols) -> _Plan:
    spec, lead = _spec(fused, symbols)
    call, operands = fused.anchor, Operands()
    operands.tensor(call.args[0])
    constant_weight = is_const(call.args[1]) and is_const(call.args[3]) and not lead
    depthwise = spec.depthwise and constant_weight and spec.channels_last
    choose = depthwise_blocking if depthwise else choose_blocking
    blocking = choose(target, spec.groups if depthwise else spec.outer)
    lanes = 1 if depthwise else blocking.channels
    bias, carried = fused.split_bias(_channel_axis(fused, spec))
    zero = _zero_point(fused, 2, operands)
    if constant_weight:
        weights = packing.centred_weights(spec, array_of(call.args[1]), array_of(call.args[3]))
        packed = packing.pack_depthwise(weights) if depthwise else packing.pack(weights, lanes)
        weight, kernel_zero = operands.tensor(const(packed)), None
        initial = _initial(spec, lanes, bias, weights, call.args[2], zero, operands)
    else:
        weight, kernel_zero = operands.tensor(call.args[1]), _zero_point(fused, 3, operands)
        initial = _vector(bias, spec, lanes, operands)
    term = fused.term(operands, carried)
    return _Plan(
        fused, spec, blocking, tuple(operands.all()), weight, term, initial, zero, kernel_zero,
        depthwise, constant_weight, lead,
    )  # fmt: skip


def _spec(fused: Fused, symbols: Symbols) -> tuple[LinearSpec, Shape]:
    """The description, and the leading axes of a batched product (empty for all others)."""
    call = fused.anchor
    data, out = symbols.shape(shape_of(call.args[0]) or ()), symbols.shape(fused.shape)
    if "conv" in fused.op:
        return conv_spec(call, data, out), ()
    weight = symbols.shape(shape_of(call.args[1]) or ())
    if min(len(data), len(weight)) < 2 and fused.op != "qnn.dense":
        raise _refused(fused, "a product with a vector is not supported", "reshape it to a matrix")
    if not all(isinstance(size, int) for size in (*weight[-2:], data[-1])):
        raise _refused(fused, "the last two axes of the second operand must be known at compile time")
    if fused.op == "qnn.dense":
        return rows_spec(product(data[:-1]), weight[1], weight[0], "OI"), ()
    inner, outer = weight[-2:]
    if all(is_one(size) for size in weight[:-2]) and len(data) >= len(weight):
        return rows_spec(product(data[:-1]), inner, outer, "IO"), ()
    return replace(rows_spec(data[-2], inner, outer, "IO"), batch=product(out[:-2])), out[:-2]


def _refused(fused: Fused, reason: str, remedy: str | None = None) -> UnsupportedError:
    return UnsupportedError(located(f"{fused.op}: {reason}", node=fused.source, remedy=remedy))


def _channel_axis(fused: Fused, spec: LinearSpec) -> int:
    return spec.data_layout.index("C") if "conv" in fused.op else len(fused.shape) - 1


def _zero_point(fused: Fused, argument: int, operands: Operands) -> Term | None:
    """A zero point of the anchor, None where it is the constant 0."""
    value = fused.anchor.args[argument]
    if is_const(value):
        values = array_of(value)
        if not np.any(values):
            return None
        if values.size > 1:
            raise _refused(fused, "a weight computed at run time has one zero point per channel")
    return run_time_scalar(value, operands)


def _initial(
    spec: LinearSpec, lanes: int, bias: Array | None, weights: Array, zero_point: Any,
    zero: Term | None, operands: Operands,
) -> Term:  # fmt: skip
    """bias - zero_point * sum of weights, folded at compile time where the zero point is known."""
    sums = packing.channel_sums(weights)
    start = np.zeros_like(sums) if bias is None else np.broadcast_to(bias.astype(np.int64), sums.shape)
    if is_const(zero_point):
        return _vector(start - int(array_of(zero_point).reshape(())) * sums, spec, lanes, operands)
    assert zero is not None
    known, scaled = _vector(start, spec, lanes, operands), _vector(sums, spec, lanes, operands)
    return lambda site: ex.wrapping_subtract(known(site), zero(site) * scaled(site))


def _vector(values: Array | None, spec: LinearSpec, lanes: int, operands: Operands) -> Term:
    """Values per output channel, in the order of the blocks."""
    if values is None or not np.any(values):
        return lambda _site: ex.int32(0)
    full = np.broadcast_to(values, (spec.groups * spec.outer,))
    return constant(packing.pack_vector(full, spec, lanes), operands)


def _runs_as_rows(plan: _Plan) -> bool:
    """Whether all pixels can be seen as the rows of one matrix, in the epilogue too."""
    spec = plan.spec
    if plan.lead or not (spec.is_plain and spec.channels_last):
        return False
    return all(_follows_rows(plan, operand) for operand in plan.operands)


def _follows_rows(plan: _Plan, operand: Operand) -> bool:
    shape = operand.shape
    per_channel = len(shape) < 2 or all(is_one(size) for size in shape[:-1])
    own = operand is plan.data or operand is plan.weight
    return own or operand.indexed or per_channel or _same_shape(shape, plan.fused.shape)


def _same_shape(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(x: Any, y: Any) -> bool:
    return bool(x == y) if isinstance(x, int) or isinstance(y, int) else bool(x.same_as(y))


def _emit_rows(plan: _Plan, buffers: dict[str, Any], output: Any) -> None:
    """Everything seen as a [rows, channels] matrix."""
    spec = plan.spec
    rows = product(output.shape[:-1])
    seen = {o.name: _as_rows(plan, o, buffers[o.name], rows) for o in plan.operands}
    flat, flat_data = view(output, (rows, spec.outer)), view(buffers[plan.data.name], (rows * spec.inner,))

    def store(place: Coordinates, value: PrimExpr) -> None:
        index = (place[3], place[4])
        tb.buffer_store(flat, plan.term(Site(seen, index, value)), list(index))

    source = Source(lambda p: flat_data[p[3] * spec.inner + p[4]], _centre(plan, buffers))
    as_rows = rows_spec(rows, spec.inner, spec.outer, spec.kernel_layout)
    _run(plan, as_rows, source, buffers, store)


def _as_rows(plan: _Plan, operand: Operand, buffer: Any, rows: Any) -> Any:
    if len(operand.shape) > 1 and _same_shape(operand.shape, plan.fused.shape):
        return view(buffer, (rows, plan.spec.outer))
    per_channel = len(operand.shape) > 1 and all(is_one(size) for size in operand.shape[:-1])
    return view(buffer, operand.shape[-1:]) if per_channel and operand is not plan.weight else buffer


def _emit_general(plan: _Plan, buffers: dict[str, Any], output: Any) -> None:
    """Loops over the real axes, in whatever layout the tensors have."""
    place_of = _place_in_output(plan, output)

    def store(place: Coordinates, value: PrimExpr) -> None:
        index = place_of(place)
        tb.buffer_store(output, plan.term(Site(buffers, tuple(index), value)), list(index))

    _run(plan, plan.spec, _source(plan, buffers), buffers, store)


def _place_in_output(plan: _Plan, output: Any) -> Callable[[Coordinates], list[PrimExpr]]:
    """From (n, d, h, w, c) to the output's index."""
    if "conv" in plan.fused.op:
        return lambda place: _by_layout(plan.spec.data_layout, place)
    if plan.lead:
        return lambda place: [*decode(place[0], output.shape[:-2]), place[3], place[4]]
    return lambda place: [*decode(place[3], output.shape[:-1]), place[4]]


def _by_layout(layout: str, place: Coordinates) -> list[PrimExpr]:
    return [place["NDHWC".index(letter)] for letter in layout]


def _source(plan: _Plan, buffers: dict[str, Any]) -> Source:
    """The activations themselves where their layout allows it, else a padded copy."""
    spec, data = plan.spec, buffers[plan.data.name]
    centre = _centre(plan, buffers)
    if plan.lead:
        return Source(lambda p: data[_batched(data, plan.lead, p[0], p[3:])], centre)
    channels = spec.groups * spec.inner
    if "conv" not in plan.fused.op:
        flat = view(data, (product(data.shape),))
        return Source(lambda p: flat[p[3] * spec.inner + p[4]], centre)
    if spec.needs_padding or not spec.channels_last:
        zero = plan.zero(Site(buffers, ())) if plan.zero else ex.int32(0)
        copy = padded_activations(
            spec, plan.data.dtype, zero, lambda *place: data[tuple(_by_layout(spec.data_layout, place))]
        )
        return Source(lambda p: copy[p[0], p[1], p[2], p[3] * channels + p[4]], centre)
    depth, height, width = spec.axes
    rows = view(data, (spec.batch, depth.size, height.size, width.size * channels))
    return Source(lambda p: rows[p[0], p[1], p[2], p[3] * channels + p[4]], centre)


def _centre(plan: _Plan, buffers: dict[str, Any]) -> PrimExpr | None:
    """What the loops must subtract from each activation: weights known at run time have no sums."""
    if plan.constant_weight or plan.zero is None:
        return None
    return plan.zero(Site(buffers, ()))


def _batched(buffer: Any, lead: Shape, n: PrimExpr, inner: Coordinates) -> tuple[PrimExpr, ...]:
    """Index of a matrix element; the leading axes broadcast against `lead`."""
    index = (*decode(n, lead), *inner)
    return broadcast_index(buffer.shape, index)


def _weights(plan: _Plan, buffers: dict[str, Any]) -> Any:
    weight = buffers[plan.weight.name]
    if plan.constant_weight:
        return weight
    spec = plan.spec
    zero = plan.kernel_zero(Site(buffers, ())) if plan.kernel_zero else None
    dtype = "int16" if plan.weight.dtype in ("int8", "uint8") else "int32"

    def read(n: PrimExpr, group: PrimExpr, o: PrimExpr, tap: Coordinates, i: PrimExpr) -> PrimExpr:
        value = ex.cast(weight[_weight_index(plan, weight, n, group, o, tap, i)], "int32")
        return value if zero is None else value - zero

    return packed_weights(spec, plan.blocking.channels, dtype, read, product(plan.lead))


def _weight_index(
    plan: _Plan, weight: Any, n: PrimExpr, group: PrimExpr, o: PrimExpr, tap: Coordinates, i: PrimExpr
) -> tuple[PrimExpr, ...]:
    spec = plan.spec
    if plan.lead or len(weight.shape) != len(spec.kernel_layout):
        return _batched(weight, plan.lead, n, (i, o)) if plan.lead else (*[0] * (len(weight.shape) - 2), i, o)
    places = {"O": group * spec.outer + o, "I": i}
    if spec.mirrored:
        tap = tuple(size - 1 - t for size, t in zip(spec.kernel, tap, strict=True))
        places = {"O": o, "I": group * spec.inner + i}
    places |= dict(zip("DHW", tap, strict=True))
    return tuple(places[letter] for letter in spec.kernel_layout)


def _run(
    plan: _Plan, spec: LinearSpec, source: Source, buffers: dict[str, Any],
    store: Callable[[Coordinates, PrimExpr], None],
) -> None:  # fmt: skip
    def initial(position: PrimExpr) -> PrimExpr:
        return plan.initial(Site(buffers, (position,)))

    weights = _weights(plan, buffers)
    if plan.depthwise:
        DepthwiseBody(spec, plan.blocking, source, weights, initial, store).emit()
        return
    LinearBody(spec, plan.blocking, source, weights, initial, store, per_batch=bool(plan.lead)).emit()
