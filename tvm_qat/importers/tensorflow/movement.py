"""Operators that move elements: shapes, slices, joins, padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tensorflow.fold import shape_array
from tvm_qat.importers.tensorflow.index import Index, picked
from tvm_qat.importers.tensorflow.model import Array
from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import Expr, const, relax


def shape(node: Node) -> Array:
    wanted = node.type("out_type") if "out_type" in node.attrs else "int32"
    return shape_array(node.shape(0), wanted)


def shapes(node: Node) -> list[Array]:
    wanted = node.type("out_type") if "out_type" in node.attrs else "int32"
    return [shape_array(node.shape(i), wanted) for i in range(len(node.inputs))]


def rank(node: Node) -> Array:
    return np.asarray(len(node.shape(0)), np.int32)


def size(node: Node) -> Array:
    return np.asarray(np.prod(shape_array(node.shape(0), "int64")))


def filled(value: int) -> Any:
    """ZerosLike and OnesLike of a known shape."""

    def converter(node: Node) -> Expr:
        sizes = node.sizes(0, list(range(len(node.shape(0)))))
        return const(np.full(sizes, value, node.dtype(0)))

    return converter


def reshape(node: Node) -> Expr:
    wanted = [part if not isinstance(part, np.integer) else int(part) for part in node.constant(1, "a shape")]
    if sum(isinstance(part, int) and part < 0 for part in wanted) > 1:
        raise InputError(f"the shape {wanted} leaves more than one size open")
    return relax.op.reshape(node.tensor(0), wanted)


def squeeze(node: Node) -> Expr:
    axes = node.wholes("squeeze_dims", [])
    return relax.op.squeeze(node.tensor(0), axes or None)


def expand_dims(node: Node) -> Expr:
    return relax.op.expand_dims(node.tensor(0), node.numbers(1, "an axis"))


def transpose(node: Node) -> Expr:
    return relax.op.permute_dims(node.tensor(0), node.numbers(1, "a permutation"))


def pad(node: Node) -> Expr:
    """Pad with zeros, PadV2 with a number, MirrorPad with reflected data."""
    widths = node.numbers(1, "paddings")
    if len(widths) != 2 * len(node.shape(0)) or min(widths, default=0) < 0:
        raise InputError(f"paddings {widths} do not fit rank {len(node.shape(0))}")
    if node.op == "MirrorPad":
        mode = node.text("mode", "")
        if mode != "REFLECT":
            raise UnsupportedError(f"mode {mode} is not supported")
        return relax.op.nn.pad(node.tensor(0), widths, "reflect")
    value = node.constant(2, "a padding value").reshape(()).item() if node.op == "PadV2" else 0
    return relax.op.nn.pad(node.tensor(0), widths, "constant", pad_value=value)


def concat(node: Node) -> Expr:
    """ConcatV2 has the axis last, Concat first."""
    place = 0 if node.op == "Concat" else len(node.inputs) - 1
    axis = node.numbers(place, "an axis")[0]
    parts = node.tensors()
    del parts[place]
    return relax.op.concat(parts, axis)


def split(node: Node) -> list[Expr]:
    """Split: axis, data. SplitV: data, sizes, axis."""
    data, place = (0, 2) if node.op == "SplitV" else (1, 0)
    shape_ = node.shape(data)
    axis = node.axis(node.numbers(place, "an axis")[0], len(shape_))
    length = node.sizes(data, [axis])[0]
    if node.op == "Split":
        count = node.whole("num_split", 1)
        if count < 1 or length % count:
            raise InputError(f"{length} elements do not split into {count} parts")
        parts = [length // count] * count
    else:
        parts = node.numbers(1, "sizes")
        rest = length - sum(part for part in parts if part >= 0)
        parts = [rest if part < 0 else part for part in parts]
    if sum(parts) != length or min(parts) < 1:
        raise InputError(f"sizes {parts} do not split {length} elements")
    if len(parts) == 1:
        return [node.tensor(data)]
    ends = [int(end) for end in np.cumsum(parts)[:-1]]
    made = node.write(relax.op.split(node.tensor(data), ends, axis))
    return [node.write(relax.TupleGetItem(made, i)) for i in range(len(parts))]


def strided_slice(node: Node) -> Expr:
    bounds = [node.constant(i, "bounds") for i in (1, 2, 3)]
    return _taken(node, picked(node, bounds))


def slice_(node: Node) -> Expr:
    begin, count = node.numbers(1, "bounds"), node.numbers(2, "bounds")
    if len(begin) != len(count):
        raise InputError("begin and size differ in length")
    pairs = zip(begin, count, strict=True)
    return _taken(node, tuple(slice(b, None if n < 0 else b + n, 1) for b, n in pairs))


def _taken(node: Node, index: tuple[Index, ...]) -> Expr:
    """data[index] as NumPy means it."""
    data, shape_ = node.tensor(0), node.shape(0)
    used = sum(entry is not None and entry is not Ellipsis for entry in index)
    if used > len(shape_) or sum(entry is Ellipsis for entry in index) > 1:
        raise InputError(f"a slice of {used} dimensions of rank {len(shape_)}")
    if not any(entry is Ellipsis for entry in index):
        index = (*index, Ellipsis)
    full: list[Any] = []
    for entry in index:
        full += [slice(None)] * (len(shape_) - used) if entry is Ellipsis else [entry]
    axes, begins, ends, steps, kept = [], [], [], [], []
    axis = 0
    for entry in full:
        if entry is None:
            kept.append(1)
            continue
        start, stop, step, result = _bounds(node, entry, shape_[axis])
        if (start, step) != (0, 1) or stop is not None:
            axes.append(axis)
            begins.append(start)
            ends.append(stop)
            steps.append(step)
        if isinstance(entry, slice):
            kept.append(result)
        axis += 1
    if axes:
        data = node.write(relax.op.strided_slice(data, axes, begins, ends, steps))
    return relax.op.reshape(data, kept) if len(kept) != len(shape_) or None in full else data


def _bounds(node: Node, entry: slice | int, length: Any) -> tuple[int, int | None, int, Any]:
    """(begin, end, step, size) of one dimension; end None where all of it is taken."""
    if entry == slice(None) or entry == slice(None, None, 1):
        return 0, None, 1, length
    if not isinstance(length, int):
        if entry in (0, slice(0, None, 1)):
            return (0, 1, 1, 1) if entry == 0 else (0, None, 1, length)
        raise UnsupportedError("it cuts a size that is only known at run time; give input_shapes")
    if isinstance(entry, int):
        place = node.axis(entry, length)
        return place, place + 1, 1, 1
    places = range(*entry.indices(length))
    if not places:
        raise InputError("its result is empty")
    if places.step < 0:
        raise UnsupportedError("a slice that runs backwards is not supported")
    if (places.start, places.step, len(places)) == (0, 1, length):
        return 0, None, 1, length
    return places.start, places[-1] + 1, places.step, len(places)


def pack(node: Node) -> Expr:
    axis = node.axis(node.whole("axis", 0), len(node.shape(0)) + 1)
    parts = [node.write(relax.op.expand_dims(part, axis)) for part in node.tensors()]
    return relax.op.concat(parts, axis)


def unpack(node: Node) -> list[Expr]:
    axis = node.axis(node.whole("axis", 0), len(node.shape(0)))
    length = node.sizes(0, [axis])[0]
    if length == 1:
        return [node.write(relax.op.squeeze(node.tensor(0), [axis]))]
    made = node.write(relax.op.split(node.tensor(0), length, axis))
    parts = (node.write(relax.TupleGetItem(made, i)) for i in range(length))
    return [node.write(relax.op.squeeze(part, [axis])) for part in parts]


def gather(node: Node) -> Expr:
    if node.whole("batch_dims", 0):
        raise UnsupportedError("batch_dims is not supported")
    rank_ = len(node.shape(0))
    axis = node.axis(node.numbers(2, "an axis")[0] if node.op == "GatherV2" else 0, rank_)
    indices, length = node.value(1), node.shape(0)[axis]
    known = isinstance(indices, np.ndarray) and isinstance(length, int)
    if known and (indices.min(initial=0) < 0 or indices.max(initial=0) >= length):
        raise InputError(f"an index outside of {length} elements")
    return relax.op.take(node.tensor(0), node.tensor(1), axis=axis, mode="clip")


def tile(node: Node) -> Expr:
    repeats = node.numbers(1, "repeats")
    if len(repeats) != len(node.shape(0)) or min(repeats, default=1) < 1:
        raise InputError(f"repeats {repeats} do not fit rank {len(node.shape(0))}")
    return relax.op.tile(node.tensor(0), repeats)


def broadcast(node: Node) -> Expr:
    wanted = [part if not isinstance(part, np.integer) else int(part) for part in node.constant(1, "a shape")]
    return relax.op.broadcast_to(node.tensor(0), wanted)
