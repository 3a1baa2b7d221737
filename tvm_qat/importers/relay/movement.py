"""Operators that move elements; constants are moved at compile time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.node import Context, Node, Value, axis_in, reshaped, transposed
from tvm_qat.ir import Expr, array_of, const, dtype_of, is_const, relax

_PADS = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_METHODS = {"nearest_neighbor": "nearest_neighbor", "linear": "linear", "cubic": "cubic"}


def reshape(context: Context, node: Node) -> Expr:
    """newshape with Relay's codes, an attribute or a constant operand."""
    if node.attrs.get("newshape") is None and len(node.args) > 1:
        codes = [int(code) for code in node.constant(1, "shape").reshape(-1)]
    else:
        codes = node.wholes("newshape", None)
    shape = new_shape(node.shape(0), codes)
    if is_const(node.tensor(0)) and math.prod(shape) != array_of(node.tensor(0)).size:
        raise InputError(f"{list(node.shape(0))} cannot become {list(shape)}")
    return reshaped(context, node.tensor(0), shape)


def new_shape(old: tuple[Any, ...], codes: list[int]) -> list[Any]:
    """The shape that Relay's codes mean.

    0 keeps a dimension, -1 is what is left, -2 keeps all that follow, -3 joins two, and -4 splits
    one into the two that follow (one of which may be -1).
    """
    new: list[Any] = []
    source, at = 0, 0
    while at < len(codes):
        code = codes[at]
        at += 1
        if code > 0 or code == -1:
            new.append(code)
            source += 1
        elif code == 0:
            new.append(_dimension(old, source))
            source += 1
        elif code == -2:
            new += old[source:]
            source = len(old)
        elif code == -3:
            new.append(_dimension(old, source) * _dimension(old, source + 1))
            source += 2
        elif code == -4:
            new += _split(_dimension(old, source), codes[at : at + 2])
            source, at = source + 1, at + 2
        else:
            raise InputError(f"code {code} in newshape is not known")
    return _inferred(old, new)


def _dimension(old: tuple[Any, ...], at: int) -> Any:
    if at >= len(old):
        raise InputError(f"newshape refers to dimension {at} of {list(old)}")
    return old[at]


def _split(size: Any, parts: list[int]) -> list[Any]:
    if len(parts) != 2 or parts.count(-1) > 1 or any(p < 1 and p != -1 for p in parts):
        raise InputError(f"newshape splits a dimension into {parts}")
    if -1 in parts:
        known = max(parts)
        parts = [size // known if p == -1 else p for p in parts]
    if isinstance(size, int) and math.prod(parts) != size:
        raise InputError(f"newshape splits {size} into {parts}")
    return list(parts)


def _inferred(old: tuple[Any, ...], new: list[Any]) -> list[Any]:
    """-1 replaced where sizes are known; TVM does it for symbolic ones."""
    unknown = [i for i, size in enumerate(new) if isinstance(size, int) and size == -1]
    if len(unknown) > 1:
        raise InputError("newshape has more than one -1")
    if not unknown or not all(isinstance(size, int) for size in (*old, *new)):
        return new
    rest = math.prod(size for size in new if size != -1)
    if not rest or math.prod(old) % rest:
        raise InputError(f"{list(old)} cannot become {new}")
    return [math.prod(old) // rest if size == -1 else size for size in new]


def transpose(context: Context, node: Node) -> Expr:
    rank = len(node.shape(0))
    given = node.attrs.get("axes")
    axes = [axis_in(axis, rank) for axis in node.wholes("axes", None)] if given else list(range(rank))[::-1]
    if sorted(axes) != list(range(rank)):
        raise InputError(f"axes {axes} are no permutation of {rank}")
    return transposed(context, node.tensor(0), axes)


def layout_transform(context: Context, node: Node) -> Expr:
    """Between layouts of whole axes: a transpose."""
    source, target = node.text("src_layout", ""), node.text("dst_layout", "")
    if sorted(source) != sorted(target) or len(set(source)) != len(node.shape(0)) or not source.isalpha():
        raise UnsupportedError(f"from layout {source!r} to {target!r} is not supported")
    return transposed(context, node.tensor(0), [source.index(axis) for axis in target])


def squeeze(context: Context, node: Node) -> Expr:
    shape = node.shape(0)
    if node.attrs.get("axis") is None:
        axes = [i for i, size in enumerate(shape) if isinstance(size, int) and size == 1]
    else:
        axes = node.axes("axis", len(shape))
    if any(not isinstance(shape[a], int) or shape[a] != 1 for a in axes):
        raise InputError(f"axes {axes} of {list(shape)} are not of length 1")
    return reshaped(context, node.tensor(0), [size for i, size in enumerate(shape) if i not in axes])


def expand_dims(context: Context, node: Node) -> Expr:
    shape, count = node.shape(0), node.whole("num_newaxis", 1)
    axis = axis_in(node.whole("axis", 0), len(shape) + 1)
    if not 0 <= count <= 32:
        raise InputError(f"num_newaxis is {count}")
    return reshaped(context, node.tensor(0), [*shape[:axis], *[1] * count, *shape[axis:]])


def batch_flatten(context: Context, node: Node) -> Expr:
    shape = node.shape(0)
    if not shape:
        raise InputError("a scalar has no batch")
    return reshaped(context, node.tensor(0), new_shape(shape, [0, -1]))


def concatenate(_context: Context, node: Node) -> Expr:
    parts = node.tensors(0)
    rank = len(parts[0].ty.shape or ())
    if len({dtype_of(part) for part in parts}) > 1:
        raise InputError("its parts have different types")
    axis = node.axis("axis", 0, rank)
    if all(is_const(part) for part in parts):
        return const(np.concatenate([array_of(part) for part in parts], axis))
    return relax.op.concat(list(parts), axis)


def stack(context: Context, node: Node) -> Expr:
    parts = node.tensors(0)
    axis = axis_in(node.whole("axis", 0), len(parts[0].ty.shape or ()) + 1)
    return relax.op.concat([context.write(relax.op.expand_dims(part, axis)) for part in parts], axis)


def split(_context: Context, node: Node) -> Value:
    """indices_or_sections: a number of equal parts, or where to cut."""
    shape = node.shape(0)
    axis = node.axis("axis", 0, len(shape))
    given = node.attrs.get("indices_or_sections")
    size = shape[axis]
    if not isinstance(size, int):
        raise UnsupportedError("a split along a dimension of unknown length is not supported")
    cuts = node.wholes("indices_or_sections", None)
    if isinstance(given, int):
        if cuts[0] < 1 or size % cuts[0]:
            raise InputError(f"{size} elements cannot be split into {cuts[0]} equal parts")
        return relax.op.split(node.tensor(0), cuts[0], axis)
    if cuts != sorted(set(cuts)) or (cuts and not 0 < cuts[0] <= cuts[-1] < size):
        raise InputError(f"{size} elements cannot be split at {cuts}")
    return relax.op.split(node.tensor(0), cuts, axis) if cuts else (node.tensor(0),)


def strided_slice(_context: Context, node: Node) -> Expr:
    """begin, end, strides on `axes` (the first ones by default); slice_mode `end` or `size`."""
    shape = node.shape(0)
    begin, end = node.wholes("begin", None), node.wholes("end", None)
    strides, mode = node.wholes("strides", [1]), node.text("slice_mode", "end")
    given = node.attrs.get("axes")
    axes = list(range(len(begin))) if given is None else node.axes("axes", len(shape))
    strides = strides * len(begin) if len(strides) == 1 else strides
    if not len(begin) == len(end) == len(strides) == len(axes) <= len(shape) or mode not in ("end", "size"):
        raise InputError(f"begin {begin}, end {end}, strides {strides} do not fit axes {axes}")
    if 0 in strides:
        raise InputError("a stride is 0")
    if mode == "size":
        strides = [1] * len(begin)
        sizes = [shape[a] if e == -1 else b + e for a, b, e in zip(axes, begin, end, strict=True)]
        end = [int(e) if isinstance(e, int) else (1 << 31) - 1 for e in sizes]
    return relax.op.strided_slice(node.tensor(0), axes, begin, end, strides)


def take(context: Context, node: Node) -> Expr:
    """Along `axis`, or from the flattened tensor; constant indices must lie inside."""
    data, shape = node.tensor(0), node.shape(0)
    if node.whole("batch_dims", 0):
        raise UnsupportedError("batch_dims is not supported")
    if node.attrs.get("axis") is None:
        data = reshaped(context, data, new_shape(shape, [-1]))
        shape, axis = (math.prod(shape) if all(isinstance(s, int) for s in shape) else None,), 0
    else:
        axis = node.axis("axis", 0, len(shape))
    indices, mode = node.tensor(1), node.text("mode", "clip")
    if not is_const(indices) or not isinstance(shape[axis], int):
        if mode not in ("clip", "wrap", "fast"):
            raise UnsupportedError(f"mode {mode!r} is not supported")
        return relax.op.take(data, indices, axis=axis, mode="wrap" if mode == "wrap" else "clip")
    values, size = array_of(indices).astype(np.int64), shape[axis]
    values = values % size if mode == "wrap" else np.clip(values, 0, size - 1)
    if is_const(data):
        return const(np.take(array_of(data), values, axis))
    return relax.op.take(data, const(values), axis=axis, mode="clip")


def pad(_context: Context, node: Node) -> Expr:
    """The value is an operand, in old texts an attribute."""
    widths, shape = node.attrs.get("pad_width"), node.shape(0)
    pairs = widths if isinstance(widths, list) and len(widths) == len(shape) else []
    flat = [w for pair in pairs for w in (pair if isinstance(pair, list) else [pair])]
    if len(flat) != 2 * len(shape) or not all(isinstance(w, int) and 0 <= w < 1 << 31 for w in flat):
        raise InputError(f"pad_width does not fit rank {len(shape)}")
    mode = node.text("pad_mode", "constant")
    if mode not in _PADS:
        raise UnsupportedError(f"pad_mode {mode!r} is not supported")
    if mode != "constant":
        return relax.op.nn.pad(node.tensor(0), flat, _PADS[mode])
    value = (
        node.constant(1, "padding value") if len(node.args) > 1 else np.asarray(node.real("pad_value", 0.0))
    )
    if value.size != 1:
        raise InputError(f"{value.size} padding values")
    number = value.reshape(()).item()
    if not node.is_float(0) and (number != number // 1 or not _holds(node.dtype(0), number)):
        raise InputError(f"{node.dtype(0)} cannot be padded with {number:g}")
    return relax.op.nn.pad(node.tensor(0), flat, pad_value=number if node.is_float(0) else int(number))


def _holds(dtype: str, number: float) -> bool:
    info = np.iinfo(dtype)
    return bool(info.min <= number <= info.max)


def broadcast_to(_context: Context, node: Node) -> Expr:
    return relax.op.broadcast_to(node.tensor(0), node.wholes("shape", None))


def tile(_context: Context, node: Node) -> Expr:
    reps = node.wholes("reps", None)
    if min(reps, default=1) < 1:
        raise InputError(f"reps is {reps}")
    return relax.op.tile(node.tensor(0), reps)


def resize2d(_context: Context, node: Node) -> Expr:
    size = node.wholes("size", None)
    method = node.text("method", "linear")
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    if len(size) != 2 or method not in _METHODS or node.text("layout", "NCHW") not in ("NCHW", "NHWC"):
        raise UnsupportedError(f"size {size}, method {method!r}, layout {node.text('layout', 'NCHW')!r}")
    return _resized(
        node, size, method, coordinates, node.text("rounding_method", "") or "round",
        node.real("cubic_alpha", -0.5),
    )  # fmt: skip


def upsampling(_context: Context, node: Node) -> Expr:
    """By whole factors. Nearest copies the pixel below (asymmetric), as Relay's did."""
    layout, method = node.text("layout", "NCHW"), node.text("method", "nearest_neighbor")
    if layout not in ("NCHW", "NHWC") or method not in ("nearest_neighbor", "bilinear"):
        raise UnsupportedError(f"method {method!r} in layout {layout!r} is not supported")
    shape = node.shape(0)
    factors = node.real("scale_h", 1.0), node.real("scale_w", 1.0)
    if len(shape) != 4:
        raise InputError(f"data of rank {len(shape)}")
    sizes = [shape[layout.index(axis)] for axis in "HW"]
    if not all(isinstance(size, int) for size in sizes) or not all(0 < f < 1 << 16 for f in factors):
        raise UnsupportedError(f"factors {factors} of dimensions {sizes}")
    size = [round(s * f) for s, f in zip(sizes, factors, strict=True)]
    corners = node.flag("align_corners", False)
    if method == "nearest_neighbor":
        return _resized(node, size, method, "asymmetric", "floor", -0.5)
    return _resized(node, size, "linear", "align_corners" if corners else "half_pixel", "round", -0.5)


def _resized(node: Node, size: list[int], method: str, coordinates: str, rounding: str, alpha: float) -> Expr:
    known = ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel", "tf_half_pixel_for_nn")
    if coordinates not in known or rounding not in ("round", "floor", "ceil", "round_prefer_floor",
                                                    "round_prefer_ceil"):  # fmt: skip
        raise UnsupportedError(f"{coordinates!r} with {rounding!r} is not supported")
    if min(size) < 1 or len(node.shape(0)) != 4:
        raise InputError(f"size {size} for rank {len(node.shape(0))}")
    if method != "nearest_neighbor" and not node.is_float(0):
        raise UnsupportedError(f"method {method!r} on {node.dtype(0)} is not supported")
    return relax.op.image.resize2d(
        node.tensor(0), size=relax.ShapeExpr(size), roi=[0.0] * 4, layout=node.text("layout", "NCHW"),
        method=method, coordinate_transformation_mode=coordinates, rounding_method=rounding,
        cubic_alpha=alpha,
    )  # fmt: skip
