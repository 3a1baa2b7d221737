"""Operators that move elements: on the integers as they are stored."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tflite.node import Node, plain
from tvm_qat.ir import Expr, Tuple, relax


def _sized(node: Node, shape: list[int]) -> list[int]:
    """A target shape with its one -1 computed."""
    count, known = math.prod(node.shape(0)), math.prod(d for d in shape if d != -1)
    if shape.count(-1) > 1 or any(d < -1 for d in shape) or (known == 0 and -1 in shape):
        raise InputError(f"a shape of {shape} is impossible")
    found = [count // known if d == -1 else d for d in shape]
    if math.prod(found) != count:
        raise InputError(f"{count} elements do not fit a shape of {shape}")
    return found


def reshape(node: Node) -> Expr:
    """The new shape is the second input, else an option, else what the file says of the result."""
    if node.constant(1) is not None:
        shape = node.numbers(1)
    else:
        options = node.options("ReshapeOptions")
        length = options.NewShapeLength()
        shape = options.NewShapeAsNumpy().tolist() if length else list(node.outputs[0].shape)
    wanted = _sized(node, _rebatched(node, shape))
    return node.moved(0, lambda data: relax.op.reshape(data, wanted))


def _rebatched(node: Node, shape: list[int]) -> list[int]:
    """A target shape that holds the file's batch, with that of the caller's `input_shapes` instead."""
    written, given = node.tensor(0).shape, node.shape(0)
    changed = len(written) == len(given) and written[1:] == given[1:] and written != given
    if changed and shape and -1 not in shape and shape[0] == written[0]:
        return [given[0], *shape[1:]]
    return shape


def squeeze(node: Node) -> Expr:
    shape, options = node.shape(0), node.options("SqueezeOptions")
    length = options.SqueezeDimsLength()
    given = options.SqueezeDimsAsNumpy().tolist() if length else [i for i, d in enumerate(shape) if d == 1]
    axes = node.axes(given, len(shape))
    kept = [d for i, d in enumerate(shape) if i not in axes]
    return node.moved(0, lambda data: relax.op.reshape(data, _sized(node, kept)))


def expand_dims(node: Node) -> Expr:
    shape = list(node.shape(0))
    (axis,) = node.axes(node.numbers(1), len(shape) + 1)
    shape.insert(axis, 1)
    return node.moved(0, lambda data: relax.op.reshape(data, shape))


def transpose(node: Node) -> Expr:
    axes = [axis % max(len(node.shape(0)), 1) for axis in node.numbers(1)]
    if sorted(axes) != list(range(len(node.shape(0)))):
        raise InputError(f"{axes} is no order of its axes")
    return node.moved(0, lambda data: relax.op.permute_dims(data, axes))


def concatenation(node: Node) -> Expr:
    options = node.options("ConcatenationOptions")
    (axis,) = node.axes([int(options.Axis())], len(node.shape(0)))
    count, target = len(node.operands), node.outputs[0].params
    same = all(node.params(i) == target for i in range(count)) and not options.FusedActivationFunction()
    if target is not None and same:
        return relax.op.concat(Tuple([node.stored(i) for i in range(count)]), axis=axis)
    parts = [node.real(i) for i in range(count)]
    return node.result(
        node.write(relax.op.concat(Tuple(parts), axis=axis)), options.FusedActivationFunction()
    )


def pack(node: Node) -> Expr:
    """Joined along a new axis."""
    (axis,) = node.axes([int(node.options("PackOptions").Axis())], len(node.shape(0)) + 1)
    shape = list(node.shape(0))
    shape.insert(axis, 1)
    target, count = node.outputs[0].params, len(node.operands)
    same = all(node.params(i) == target for i in range(count))
    parts = [node.stored(i) if same else node.real(i) for i in range(count)]
    parts = [node.write(relax.op.reshape(part, shape)) for part in parts]
    joined = relax.op.concat(Tuple(parts), axis=axis)
    return joined if same else node.result(joined)


def unpack(node: Node) -> list[Expr]:
    shape = list(node.shape(0))
    (axis,) = node.axes([int(node.options("UnpackOptions").Axis())], len(shape))
    kept = shape[:axis] + shape[axis + 1 :]
    parts = _cut(node, 0, axis, [1] * shape[axis])
    return [node.write(relax.op.reshape(part, kept)) for part in parts]


def _cut(node: Node, index: int, axis: int, sizes: list[int]) -> list[Expr]:
    """The parts of a tensor, of the given sizes along `axis`, each as its output is stored."""
    if len(sizes) != len(node.outputs) or min(sizes, default=0) < 1:
        raise InputError(f"parts of sizes {sizes} do not fit {len(node.outputs)} results")
    begins = np.cumsum([0, *sizes]).tolist()
    return [
        node.write(
            node.moved(
                index,
                lambda data, b=begin, n=size: relax.op.strided_slice(data, [axis], [b], [b + n]),  # type: ignore[misc]
                output,
            )
        )
        for output, (begin, size) in enumerate(zip(begins, sizes, strict=False))
    ]


def split(node: Node) -> list[Expr]:
    """Equal parts; the axis is the first input."""
    (axis,) = node.axes(node.numbers(0), len(node.shape(1)))
    count = int(node.options("SplitOptions").NumSplits())
    if count < 1 or node.shape(1)[axis] % count:
        raise InputError(f"{node.shape(1)[axis]} elements do not split into {count} parts")
    return _cut(node, 1, axis, [node.shape(1)[axis] // count] * count)


def split_v(node: Node) -> list[Expr]:
    """Parts of the sizes that the second input gives, one of them perhaps -1."""
    sizes = node.numbers(1)
    (axis,) = node.axes(node.numbers(2), len(node.shape(0)))
    rest = node.shape(0)[axis] - sum(size for size in sizes if size != -1)
    sizes = [rest if size == -1 else size for size in sizes]
    if sum(sizes) != node.shape(0)[axis]:
        raise InputError(f"sizes {sizes} do not add up to {node.shape(0)[axis]}")
    return _cut(node, 0, axis, sizes)


def slice_(node: Node) -> Expr:
    begin, size, shape = node.numbers(1), node.numbers(2), node.shape(0)
    if not len(begin) == len(size) == len(shape):
        raise InputError("begin and size do not fit its rank")
    end = [n if s == -1 else b + s for b, s, n in zip(begin, size, shape, strict=True)]
    if any(not 0 <= b < e <= n for b, e, n in zip(begin, end, shape, strict=True)):
        raise InputError(f"a slice from {begin} to {end} leaves a shape of {list(shape)}")
    axes = list(range(len(shape)))
    return node.moved(0, lambda data: relax.op.strided_slice(data, axes, begin, end))


def strided_slice(node: Node) -> Expr:
    """NumPy's slicing; masks say where a bound is left out or an axis is dropped."""
    options, shape = node.options("StridedSliceOptions"), node.shape(0)
    if options.EllipsisMask() or options.NewAxisMask():
        raise UnsupportedError("ellipsis and new axes are not supported")
    begin, end, steps = node.numbers(1), node.numbers(2), node.numbers(3)
    if not len(begin) == len(end) == len(steps) <= len(shape) or 0 in steps:
        raise InputError("begin, end and strides do not fit its rank")
    dropped = [i for i in range(len(begin)) if options.ShrinkAxisMask() >> i & 1]
    taken = []
    for i, size in enumerate(shape[: len(begin)]):
        first = None if options.BeginMask() >> i & 1 else begin[i]
        last = None if options.EndMask() >> i & 1 else end[i]
        if i in dropped:
            first, last, steps[i] = begin[i], (begin[i] + 1) or None, 1
        taken.append(range(size)[slice(first, last, steps[i])])
    if any(len(found) == 0 or (i in dropped and len(found) != 1) for i, found in enumerate(taken)):
        raise InputError("it takes nothing")
    if any(step < 0 for step in steps):
        raise UnsupportedError("slices that run backwards are not supported")
    kept = [len(found) for i, found in enumerate(taken) if i not in dropped] + list(shape[len(begin) :])

    def cut(data: Expr) -> Expr:
        sliced = relax.op.strided_slice(
            data, list(range(len(taken))), [t[0] for t in taken], [t[-1] + 1 for t in taken], steps
        )
        return relax.op.reshape(node.write(sliced), kept) if dropped else sliced

    return node.moved(0, cut)


def gather(node: Node) -> Expr:
    """Constant indices are checked; others are clipped to the data, where LiteRT would stop."""
    options = node.options("GatherOptions")
    if options.BatchDims():
        raise UnsupportedError("batch dimensions are not supported")
    (axis,) = node.axes([int(options.Axis())], len(node.shape(0)))
    places = node.constant(1)
    if places is not None and (places.min(initial=0) < 0 or places.max(initial=0) >= node.shape(0)[axis]):
        raise InputError("its indices lie outside its data")
    return node.moved(0, lambda data: relax.op.take(data, node.stored(1), axis=axis, mode="clip"))


def pad(node: Node) -> Expr:
    """PAD with real zeros, PADV2 with a value that is stored like the data."""
    width = _widths(node)
    fill = 0.0
    if node.has(2):
        value = node.constant(2)
        if value is None or value.size != 1:
            raise UnsupportedError("a padding value that is computed at run time is not supported")
        params = node.params(2)
        fill = float(value.reshape(()))
        fill = fill if params is None else (fill - int(params.zero_point)) * float(params.scale)
    return node.result(node.write(relax.op.nn.pad(node.real(0), width, "constant", fill)))


def mirror_pad(node: Node) -> Expr:
    modes = {0: "reflect", 1: "symmetric"}
    mode = modes.get(node.options("MirrorPadOptions").Mode())
    if mode is None:
        raise InputError("its mode is not known")
    pairs = np.reshape(_widths(node), (-1, 2)).tolist()

    def padded(data: Expr) -> Expr:
        for axis, (before, after) in enumerate(pairs):
            size = node.shape(0)[axis]
            if max(before, after) > size - (mode == "reflect"):
                raise InputError(f"it pads axis {axis} by more than its {size} elements")
            places = np.pad(np.arange(size), (before, after), mode)  # type: ignore[call-overload]
            if before or after:
                data = node.write(relax.op.take(data, plain(places, "int32"), axis=axis, mode="clip"))
        return data

    return node.moved(0, padded)


def _widths(node: Node) -> list[int]:
    widths = node.numbers(1)
    if len(widths) != 2 * len(node.shape(0)) or min(widths, default=0) < 0:
        raise InputError(f"paddings {widths} do not fit its rank")
    return widths


def tile(node: Node) -> Expr:
    times = node.numbers(1)
    if len(times) != len(node.shape(0)) or min(times, default=1) < 1:
        raise InputError(f"multiples {times} do not fit its rank")
    return node.moved(0, lambda data: relax.op.tile(data, times))


def broadcast_to(node: Node) -> Expr:
    shape = node.numbers(1)
    return node.moved(0, lambda data: relax.op.broadcast_to(data, shape))


def space_to_depth(node: Node) -> Expr:
    """Blocks of the image become channels, the block's rows first."""
    n, h, w, c = _image(node)
    size = int(node.options("SpaceToDepthOptions").BlockSize())
    if size < 1 or h % size or w % size:
        raise InputError(f"blocks of {size} do not fit {h} by {w}")
    return _rearranged(
        node, (n, h // size, size, w // size, size, c), (0, 1, 3, 2, 4, 5), (n, h // size, w // size, -1)
    )


def depth_to_space(node: Node) -> Expr:
    n, h, w, c = _image(node)
    size = int(node.options("DepthToSpaceOptions").BlockSize())
    if size < 1 or c % (size * size):
        raise InputError(f"blocks of {size} do not fit {c} channels")
    return _rearranged(
        node, (n, h, w, size, size, c // size**2), (0, 1, 3, 2, 4, 5), (n, h * size, w * size, -1)
    )


def _image(node: Node) -> tuple[int, int, int, int]:
    shape = node.shape(0)
    if len(shape) != 4:
        raise InputError(f"its input has rank {len(shape)}, not 4")
    return shape[0], shape[1], shape[2], shape[3]


def _rearranged(node: Node, split_: Any, order: Any, joined: Any) -> Expr:
    def move(data: Expr) -> Expr:
        apart = node.write(relax.op.reshape(data, split_))
        turned = node.write(relax.op.permute_dims(apart, order))
        return relax.op.reshape(turned, _sized(node, list(joined)))

    return node.moved(0, move)


def shape_of_data(node: Node) -> Expr:
    return plain(node.shape(0), node.outputs[0].dtype)


def reverse(node: Node) -> Expr:
    def flipped(data: Expr) -> Expr:
        for axis in node.axes(node.numbers(1), len(node.shape(0))):
            data = node.write(relax.op.flip(data, axis))
        return data

    return node.moved(0, flipped)
