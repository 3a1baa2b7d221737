"""From the plan of a sum of products to its loops: maps coordinates of the loops to real tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm_qat.kernels import expressions as ex
from tvm_qat.kernels.builder import Kernel, Symbols, prim_func, view
from tvm_qat.kernels.dot import DotBody
from tvm_qat.kernels.dot_batched import BatchedDotBody, RightSide
from tvm_qat.kernels.dot_borders import BorderDotBody
from tvm_qat.kernels.dot_deferred import DeferredDotBody, deferred_blocking, defers
from tvm_qat.kernels.dot_depthwise import DepthwiseDotBody
from tvm_qat.kernels.dot_pairs import PairedDotBody
from tvm_qat.kernels.dot_ring import RingDotBody
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.isa import DotProduct
from tvm_qat.kernels.linear import Coordinates, DepthwiseBody, LinearBody, Sink, Source
from tvm_qat.kernels.linear_places import matrix_place, weight_place
from tvm_qat.kernels.linear_plan import LinearPlan, plan_linear
from tvm_qat.kernels.linear_spec import LinearSpec, rows_spec
from tvm_qat.kernels.loops import decode, product
from tvm_qat.kernels.operands import Operand, Site, is_one
from tvm_qat.kernels.padding import OTHER_SIGN, flipped, flipped_copy, packed_weights, padded_activations


def build_linear(fused: Fused, target: Any, isa: DotProduct | None = None) -> Kernel:
    """The kernel of any operator of kind `linear`; the plain one without `isa`."""
    symbols = Symbols()
    plan = plan_linear(fused, target, symbols, isa)
    emit = _emit_rows if _runs_as_rows(plan) else _emit_general

    def body(buffers: dict[str, Any], output: Any) -> None:
        emit(plan, buffers, output)

    return prim_func(fused.name, symbols, plan.operands, fused.shape, fused.dtype, body)


def _runs_as_rows(plan: LinearPlan) -> bool:
    """Whether all pixels can be seen as the rows of one matrix, in the epilogue too."""
    spec = plan.spec
    if plan.lead or not (spec.is_plain and spec.channels_last):
        return False
    return all(_follows_rows(plan, operand) for operand in plan.operands)


def _follows_rows(plan: LinearPlan, operand: Operand) -> bool:
    shape = operand.shape
    per_channel = len(shape) < 2 or all(is_one(size) for size in shape[:-1])
    own = operand is plan.data or operand is plan.weight
    return own or operand.indexed or per_channel or _same_shape(shape, plan.fused.shape)


def _same_shape(a: Sequence[Any], b: Sequence[Any]) -> bool:
    return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))


def _same(x: Any, y: Any) -> bool:
    return bool(x == y) if isinstance(x, int) or isinstance(y, int) else bool(x.same_as(y))


def _emit_rows(plan: LinearPlan, buffers: dict[str, Any], output: Any) -> None:
    """Everything seen as a [rows, channels] matrix."""
    spec = plan.spec
    rows = product(output.shape[:-1])
    seen = {o.name: _as_rows(plan, o, buffers[o.name], rows) for o in plan.operands}
    flat, flat_data = view(output, (rows, spec.outer)), view(buffers[plan.data.name], (rows * spec.inner,))

    sink = Sink(plan.term, seen, flat, lambda place: place[3:], _residuals(plan, seen))
    if plan.flips:
        flat_data = flipped_copy(flat_data)
    source = Source(flat_data, lambda p: (p[3] * spec.inner + p[4],), _centre(plan, buffers))
    as_rows = rows_spec(rows, spec.inner, spec.outer, spec.kernel_layout)
    _run(plan, as_rows, source, buffers, sink)


def _as_rows(plan: LinearPlan, operand: Operand, buffer: Any, rows: Any) -> Any:
    if len(operand.shape) > 1 and _same_shape(operand.shape, plan.fused.shape):
        return view(buffer, (rows, plan.spec.outer))
    per_channel = len(operand.shape) > 1 and all(is_one(size) for size in operand.shape[:-1])
    return view(buffer, operand.shape[-1:]) if per_channel and operand is not plan.weight else buffer


def _emit_general(plan: LinearPlan, buffers: dict[str, Any], output: Any) -> None:
    """Loops over the real axes, in whatever layout the tensors have."""
    sink = Sink(plan.term, buffers, output, _place_in_output(plan, output), _residuals(plan, buffers))
    _run(plan, plan.spec, _source(plan, buffers), buffers, sink)


def _residuals(plan: LinearPlan, buffers: dict[str, Any]) -> list[Any]:
    others = [o for o in plan.operands if o is not plan.data and o is not plan.weight]
    return [buffers[o.name] for o in others if _same_shape(o.shape, plan.fused.shape)]


def _place_in_output(plan: LinearPlan, output: Any) -> Callable[[Coordinates], list[PrimExpr]]:
    """From (n, d, h, w, c) to the output's index."""
    if "conv" in plan.fused.op:
        return lambda place: _by_layout(plan.spec.data_layout, place)
    if plan.lead:
        return lambda place: [*decode(place[0], output.shape[:-2]), place[3], place[4]]
    return lambda place: [*decode(place[3], output.shape[:-1]), place[4]]


def _by_layout(layout: str, place: Coordinates) -> list[PrimExpr]:
    return [place["NDHWC".index(letter)] for letter in layout]


def _source(plan: LinearPlan, buffers: dict[str, Any]) -> Source:
    """The activations themselves where their layout allows it, else a padded copy."""
    spec, data = plan.spec, buffers[plan.data.name]
    centre = _centre(plan, buffers)
    if plan.lead:
        if plan.flips:
            data = view(flipped_copy(view(data, (product(data.shape),))), data.shape)
        return Source(data, lambda p: matrix_place(plan.fused, plan.lead, 0, data, p[0], p[3:]), centre)
    channels = spec.groups * spec.inner
    if "conv" not in plan.fused.op:
        flat = view(data, (product(data.shape),))
        flat = flipped_copy(flat) if plan.flips else flat
        return Source(flat, lambda p: (p[3] * spec.inner + p[4],), centre)
    if plan.copies:
        copy = _copy(plan, data, _zero(plan, buffers))
        return Source(copy, lambda p: (p[0], p[1], p[2], p[3] * channels + p[4]), centre)
    depth, height, width = spec.axes
    rows = view(data, (spec.batch, depth.size, height.size, width.size * channels))
    top, left = (height.before, width.before) if plan.skips_borders else (0, 0)
    return Source(rows, lambda p: (p[0], p[1], p[2] - top, (p[3] - left) * channels + p[4]), centre)


def _zero(plan: LinearPlan, buffers: dict[str, Any]) -> PrimExpr:
    return plan.zero(Site(buffers, ())) if plan.zero else ex.int32(0)


def _copy(plan: LinearPlan, data: Any, zero: PrimExpr) -> Any:
    """The activations channels-last, padded with their zero point, in the dtype of the loops."""
    layout = plan.spec.data_layout

    def read(*place: PrimExpr) -> PrimExpr:
        x = data[tuple(_by_layout(layout, place))]
        return flipped(x) if plan.flips else x

    spec, read_flat = plan.spec, None
    if spec.channels_last:
        depth, height, width = spec.axes
        rows = view(data, (spec.batch, depth.size, height.size, width.size * spec.groups * spec.inner))

        def read_flat(*place: PrimExpr) -> PrimExpr:
            return flipped(rows[place]) if plan.flips else rows[place]

    if not plan.flips:
        return padded_activations(spec, plan.data.dtype, zero, read, read_flat)
    moved = ex.int32(plan.moved)
    return padded_activations(spec, OTHER_SIGN[plan.data.dtype], zero + moved, read, read_flat)


def _centre(plan: LinearPlan, buffers: dict[str, Any]) -> PrimExpr | None:
    """What the loops must subtract from each activation: weights known at run time have no sums."""
    if plan.constant_weight or plan.zero is None:
        return None
    return plan.zero(Site(buffers, ()))


def _weights(plan: LinearPlan, buffers: dict[str, Any]) -> Any:
    weight = buffers[plan.weight.name]
    if plan.constant_weight:
        return weight
    spec = plan.spec
    zero = plan.kernel_zero(Site(buffers, ())) if plan.kernel_zero else None
    dtype = "int16" if plan.weight.dtype in ("int8", "uint8") else "int32"

    def place(n: PrimExpr, group: PrimExpr, o: PrimExpr, tap: Coordinates, i: PrimExpr) -> Coordinates:
        if plan.lead:
            return matrix_place(plan.fused, plan.lead, 1, weight, n, (i, o))
        return weight_place(spec, weight, group, o, tap, i)

    def read(n: PrimExpr, group: PrimExpr, o: PrimExpr, tap: Coordinates, i: PrimExpr) -> PrimExpr:
        value = ex.cast(weight[place(n, group, o, tap, i)], "int32")
        return value if zero is None else value - zero

    return packed_weights(spec, plan.blocking.channels, dtype, read, product(plan.lead))


def _run(plan: LinearPlan, spec: LinearSpec, source: Source, buffers: dict[str, Any], sink: Sink) -> None:
    def initial(position: PrimExpr) -> PrimExpr:
        return plan.initial(Site(buffers, (position,)))

    if plan.isa is not None and not plan.constant_weight:
        _run_batched(plan, spec, source, buffers, sink, initial)
        return
    weights = _weights(plan, buffers)
    if plan.depthwise:
        if plan.isa is None:
            DepthwiseBody(spec, plan.blocking, source, weights, initial, sink).emit()
        else:
            DepthwiseDotBody(
                spec.of_padded if plan.copies else spec, plan.blocking, source, weights, initial, sink,
                plan.isa, ex.cast(_zero(plan, buffers), source.buffer.dtype), plan.zero is None, plan.packs,
            ).emit()  # fmt: skip
    elif plan.isa is not None:
        _run_dot(plan, plan.isa, spec, source, buffers, initial, sink)
    else:
        LinearBody(spec, plan.blocking, source, weights, initial, sink, per_batch=bool(plan.lead)).emit()


def _run_dot(
    plan: LinearPlan, isa: DotProduct, spec: LinearSpec, source: Source, buffers: dict[str, Any],
    initial: Callable[[PrimExpr], PrimExpr], sink: Sink,
) -> None:  # fmt: skip
    """A product with constant weights."""
    body: type[DotBody] = DotBody
    blocking, weights = plan.blocking, _weights(plan, buffers)
    if plan.ring is not None:
        parts = buffers[plan.ring.name]
        RingDotBody(spec, blocking, source, weights, initial, sink, isa=isa, parts=parts).emit()
        return
    if isa.pixels == 2:
        body = PairedDotBody
    elif plan.skips_borders:
        body = BorderDotBody
    elif defers(spec, blocking, isa):
        body, blocking = DeferredDotBody, deferred_blocking(blocking)
    ring = plan.zero is None and not plan.flips
    body(spec, blocking, source, weights, initial, sink, isa=isa, zero_ring=ring).emit()


def _run_batched(
    plan: LinearPlan, spec: LinearSpec, source: Source, buffers: dict[str, Any], sink: Sink,
    initial: Callable[[PrimExpr], PrimExpr],
) -> None:  # fmt: skip
    """A product whose right side is packed at run time."""
    assert plan.isa is not None
    right = buffers[plan.weight.name]
    _, axes = plan.fused.origin(plan.fused.anchor.args[1])
    side = RightSide(
        right, lambda n, *place: matrix_place(plan.fused, plan.lead, 1, right, n, place), spec.batch,
        spec.inner, spec.outer, plan.blocking.channels, plan.isa,
        by_columns=axes is not None and axes[-2] == len(axes) - 1,
    )  # fmt: skip
    packed, sums = side.pack()
    zero = _zero(plan, buffers)
    offset = zero + ex.int32(plan.moved) if plan.flips else zero
    BatchedDotBody(
        spec,
        plan.blocking,
        source,
        packed,
        initial,
        sink,
        per_batch=True,
        isa=plan.isa,
        sums=sums,
        offset=offset,
    ).emit()
