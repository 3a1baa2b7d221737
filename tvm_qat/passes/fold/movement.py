"""Rules for operators that move values without computing: they run on the integers as they are.

Includes the operators that only select by order (max_pool, max, min, argmax): a positive scale
keeps order. Parameters per channel follow the axis where it stays whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tvm_qat.ir import (
    Call,
    Expr,
    Tuple,
    array_of,
    attrs_of,
    const,
    is_const,
    op_name,
    relax,
    shape_of,
    static_shape,
)
from tvm_qat.passes.carry import Walk
from tvm_qat.passes.fold.values import Carried, Pending, Skip, plain
from tvm_qat.qparams import QParams

AxisMap = Callable[[Expr, int], int | None]
"""(call, old axis) -> new axis, or None if the axis does not stay whole."""


def _permuted(call: Expr, axis: int) -> int | None:
    axes = attrs_of(call)["axes"]
    rank = len(shape_of(call.args[0]) or ())
    order = list(reversed(range(rank))) if axes is None else [a % rank for a in axes]
    return order.index(axis)


def _reshaped(call: Expr, axis: int) -> int | None:
    """The axis of the result with the same length and the same number of elements before it."""
    old, new = shape_of(call.args[0]), shape_of(call)
    if old is None or new is None:
        return None
    before = _product(old[:axis])
    for candidate, size in enumerate(new):
        if size == old[axis] and _product(new[:candidate]) == before:
            return candidate
    return None


def _product(dims: Any) -> tuple[int, tuple[str, ...]]:
    """Known factor and the symbolic ones by name, so that products can be compared."""
    known = int(np.prod([d for d in dims if isinstance(d, int)], dtype=np.int64))
    return known, tuple(sorted(str(d) for d in dims if not isinstance(d, int)))


def _same_axis(_call: Expr, axis: int) -> int | None:
    return axis


def _untouched(call: Expr, axis: int) -> int | None:
    """The same axis, if its length did not change."""
    old, new = shape_of(call.args[0]), shape_of(call)
    kept = old is not None and new is not None and len(old) == len(new) and old[axis] == new[axis]
    return axis if kept else None


def _sliced(call: Expr, axis: int) -> int | None:
    """The same axis, unless the slice picks from it."""
    if not isinstance(call.args[1], Tuple):
        return None
    rank = len(shape_of(call.args[0]) or ())
    picked = {int(getattr(a, "value", a)) % rank for a in call.args[1].fields}
    return None if axis in picked else axis


def _taken(call: Expr, axis: int) -> int | None:
    """The channels shift where indices of another rank replace an axis before them."""
    rank, indices, attrs = len(shape_of(call.args[0]) or ()), shape_of(call.args[1]), attrs_of(call)
    if attrs["axis"] is None or indices is None or attrs["axis"] % rank == axis:
        return None
    return axis + (len(indices) - 1 if attrs["axis"] % rank < axis else 0)


def _not_moved(_call: Expr, _axis: int) -> int | None:
    return None


MOVES: dict[str, AxisMap] = {
    "relax.permute_dims": _permuted,
    "relax.reshape": _reshaped,
    "relax.flatten": _reshaped,
    "relax.nn.batch_flatten": _reshaped,
    "relax.expand_dims": _reshaped,
    "relax.squeeze": _reshaped,
    "relax.broadcast_to": _untouched,
    "relax.strided_slice": _sliced,
    "relax.dynamic_strided_slice": _not_moved,
    "relax.take": _taken,
    "relax.gather_elements": _not_moved,
    "relax.gather_nd": _not_moved,
    "relax.index_tensor": _not_moved,
    "relax.flip": _not_moved,
    "relax.tile": _not_moved,
    "relax.repeat": _not_moved,
    "relax.nn.max_pool1d": _same_axis,
    "relax.nn.max_pool2d": _same_axis,
    "relax.nn.max_pool3d": _same_axis,
    "relax.nn.pixel_shuffle": _not_moved,
    "relax.max": _not_moved,
    "relax.min": _not_moved,
}
"""Operators whose first operand may be carried through, with what they do to its channel axis."""

_AT_COMPILE_TIME: dict[str, Callable[[Expr, Any], Any]] = {
    "relax.permute_dims": lambda call, q: q.transpose(attrs_of(call)["axes"]),
    "relax.reshape": lambda call, q: q.reshape(_known(shape_of(call))),
    "relax.flatten": lambda call, q: q.reshape(_known(shape_of(call))),
    "relax.expand_dims": lambda call, q: q.reshape(_known(shape_of(call))),
    "relax.squeeze": lambda call, q: q.reshape(_known(shape_of(call))),
    "relax.broadcast_to": lambda call, q: np.broadcast_to(q, _known(shape_of(call))),
}


def _known(shape: Any) -> tuple[int, ...]:
    return tuple(int(d) for d in shape)


def move(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """One of MOVES on a carried or pending tensor."""
    value = operands[0]
    if isinstance(value, Pending):
        return Pending(call, (value, *operands[1:]), source=walk.source)
    if not isinstance(value, Carried):
        if not isinstance(value, tuple) and is_const(value) and op_name(call) in _AT_COMPILE_TIME:
            return apply_move(walk, call, value)
        return Skip("not-quantized", "its input is not quantized")
    params = value.params
    if params.axis is not None:
        axis = MOVES[op_name(call)](call, params.axis)
        if axis is None:
            return Skip("per-channel", "it moves the channels along which its input is quantized")
        params = params.with_(axis=axis)
    return replace(value, q=apply_move(walk, call, value.q), params=params, source=walk.source)


def apply_move(walk: Walk, call: Expr, q: Expr, source: str | None = None) -> Expr:
    """The same movement of another tensor, for node `source`; at compile time for a constant."""
    if is_const(q) and op_name(call) in _AT_COMPILE_TIME and static_shape(call) is not None:
        return const(_AT_COMPILE_TIME[op_name(call)](call, array_of(q)))
    rest = [walk.settle(walk.lookup(arg)) for arg in call.args[1:]]
    return walk.emit(Call(call.op, [q, *rest], call.attrs, call.ty_args), source)


def split(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """A tuple of carried parts, per tensor."""
    value = operands[0]
    if not isinstance(value, Carried):
        return Skip("not-quantized", "its input is not quantized")
    if value.params.per_channel:
        return Skip("per-channel", "its input is quantized per channel")
    parts = walk.emit(Call(call.op, [value.q], call.attrs, call.ty_args))
    count = len(parts.ty.fields)
    return tuple(replace(value, q=walk.emit(parts[i]), source=walk.source) for i in range(count))


def pad(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Constant padding with a value that lies on the grid: zero always does."""
    value = operands[0]
    if not isinstance(value, Carried):
        return Skip("not-quantized", "its input is not quantized")
    if value.params.per_channel:
        return Skip("per-channel", "its input is quantized per channel")
    applied = plain(walk, value)
    if isinstance(applied, Skip):
        return applied
    attrs = attrs_of(call)
    fill = float(attrs["pad_value"])
    on_grid = padded_value(applied.params, fill)
    if attrs["pad_mode"] == "constant" and on_grid is None:
        return Skip("off-grid", f"its padding value {fill:g} does not lie on the grid of its input")
    q = relax.op.nn.pad(applied.q, attrs["pad_width"], attrs["pad_mode"], on_grid or 0)
    bound = None if applied.bound is None else max(applied.bound, abs(on_grid or 0))
    return replace(applied, q=walk.emit(q), bound=bound, source=walk.source)


def padded_value(params: QParams, fill: float) -> int | None:
    """The integer that means exactly `fill`, if there is one."""
    steps = fill / float(params.scale)
    if not math.isfinite(steps):
        return None
    q = round(steps) + int(params.zero_point)
    exact = steps == round(steps) and params.range[0] <= q <= params.range[1]
    return q if exact else None


def resize(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Nearest-neighbour resizing only copies; other methods compute."""
    if attrs_of(call)["method"] != "nearest_neighbor":
        return Skip("no-rule", f"resizing by {attrs_of(call)['method']} has no integer rule; use nearest")
    value = operands[0]
    if not isinstance(value, Carried) or value.params.per_channel:
        return Skip("not-quantized", "its input is not quantized per tensor")
    return replace(value, q=apply_move(walk, call, value.q), source=walk.source)


def arg_of_extreme(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """argmax and argmin read the order of the integers; their result is no real number."""
    value = operands[0]
    if not isinstance(value, Carried) or value.params.per_channel:
        return Skip("not-quantized", "its input is not quantized per tensor")
    applied = plain(walk, value)
    if isinstance(applied, Skip):
        return applied
    return walk.emit(Call(call.op, [applied.q, *call.args[1:]], call.attrs, call.ty_args))


_SORTABLE = ("int8", "uint8", "int32")


def topk(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """The greatest or least integers and their places, whichever of the two are asked for."""
    value = operands[0]
    if not isinstance(value, Carried) or value.params.per_channel:
        return Skip("not-quantized", "its input is not quantized per tensor")
    if value.params.dtype not in _SORTABLE:
        return Skip("width", f"TVM cannot sort {value.params.dtype}")
    applied = plain(walk, value)
    if isinstance(applied, Skip):
        return applied
    found = walk.emit(Call(call.op, [applied.q, *call.args[1:]], call.attrs, call.ty_args))
    wanted = attrs_of(call)["ret_type"]
    if wanted == "indices":
        return found
    values = replace(applied, q=walk.emit(found[0]) if wanted == "both" else found, source=walk.source)
    return (values, walk.emit(found[1])) if wanted == "both" else values


def cast(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Between float types: the integers stay, and turn back to the new type if they must."""
    value, dtype = operands[0], str(attrs_of(call)["dtype"])
    if not isinstance(value, Carried):
        return Skip("not-quantized", "its input is not quantized")
    return replace(value, out_dtype=dtype) if dtype.startswith(("float", "bfloat")) else None


def where(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Choice between two tensors on the same grid."""
    condition, x, y = operands
    if not (isinstance(x, Carried) and isinstance(y, Carried)):
        return Skip("not-quantized", "one of its branches is not quantized")
    same = x.params == y.params and not x.params.per_channel and (x.low, x.high) == (y.low, y.high)
    if not same:
        return Skip("other-grid", "its branches are quantized differently")
    q = Call(call.op, [walk.settle(condition), x.q, y.q], call.attrs, call.ty_args)
    return replace(x, q=walk.emit(q), bound=_greatest_bound([x, y]), source=walk.source)


def _greatest_bound(values: Sequence[Carried]) -> int | None:
    """What holds for a tensor that takes its elements from all of `values`."""
    known = [value.bound for value in values if value.bound is not None]
    return max(known) if len(known) == len(values) else None


def concat(walk: Walk, call: Expr, operands: list[Any]) -> Any:
    """Parts on one grid are joined as they are; others wait for the grid of the result."""
    parts = operands[0]
    if not isinstance(parts, tuple) or not all(
        isinstance(p, Carried | Pending) or is_const(p) for p in parts
    ):
        return Skip("not-quantized", "one of its parts is not quantized")
    if not any(isinstance(p, Carried | Pending) for p in parts):
        return None
    first = parts[0]
    carried = all(isinstance(p, Carried) and not p.params.per_channel for p in parts)
    if carried and all(
        p.params == first.params and (p.low, p.high) == (first.low, first.high) for p in parts
    ):
        q = Call(call.op, [Tuple([p.q for p in parts])], call.attrs, call.ty_args)
        return replace(first, q=walk.emit(q), bound=_greatest_bound(parts), source=walk.source)
    return Pending(call, (tuple(parts),), source=walk.source)


RULES = {
    **dict.fromkeys(MOVES, move),
    "relax.split": split,
    "relax.nn.pad": pad,
    "relax.image.resize2d": resize,
    "relax.argmax": arg_of_extreme,
    "relax.argmin": arg_of_extreme,
    "relax.topk": topk,
    "relax.astype": cast,
    "relax.where": where,
    "relax.concat": concat,
}
