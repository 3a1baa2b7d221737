"""What is computed from constants and shapes alone, in NumPy.

Shapes with symbolic sizes are arrays of dtype object, on which NumPy's operations call those of
TVM's expressions; what becomes all numbers again becomes an array of integers again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tensorflow.index import picked
from tvm_qat.importers.tensorflow.model import MOST_ELEMENTS, Array
from tvm_qat.importers.tensorflow.node import Node
from tvm_qat.ir import tvm


def folded(node: Node) -> list[Array]:
    """The results of a node whose operands are all arrays. Their dtype is the operands', or `T`."""
    try:
        with np.errstate(all="ignore"):
            made = FOLDS[node.op](node, *node.inputs)
    except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError) as error:
        raise InputError(f"it cannot be computed from its constants: {error}") from None
    return [_plain(part) for part in (made if isinstance(made, list) else [made])]


def shape_array(shape: tuple[Any, ...], dtype: str) -> Array:
    """A shape as Shape gives it."""
    if all(isinstance(size, int) for size in shape):
        return np.asarray(shape, dtype)
    values = np.empty(len(shape), object)
    values[:] = list(shape)
    return values


def _plain(values: Any) -> Array:
    found = np.asarray(values)
    if found.dtype != object:
        return found
    simple = np.empty(found.shape, object)
    for place in np.ndindex(found.shape):
        simple[place] = _simplified(found[place])
    numbers = all(isinstance(value, int) for value in simple.reshape(-1))
    return simple.astype(np.int32) if numbers else simple


def _simplified(value: Any) -> Any:
    if isinstance(value, tvm.ir.Expr):
        value = tvm.sym.Analyzer().simplify(value)
        return int(value) if isinstance(value, tvm.tirx.IntImm) else value
    return int(value)


def _axes(axes: Array, rank: int) -> tuple[int, ...]:
    return tuple(int(axis) % max(rank, 1) for axis in np.asarray(axes).reshape(-1))


def _reduce(function: Callable[..., Any]) -> Callable[..., Any]:
    def run(node: Node, x: Array, axes: Array) -> Any:
        kept = node.flag("keep_dims")
        made = function(x, axis=_axes(axes, x.ndim), keepdims=kept)
        return made if x.dtype == object else np.asarray(made, x.dtype)

    return run


def _bounded(count: float) -> None:
    if not count < MOST_ELEMENTS / 64:
        raise InputError(f"it makes a constant of {count:g} elements")


def _fill(_node: Node, dims: Array, value: Array) -> Array:
    if dims.dtype == object:
        raise UnsupportedError("a tensor of symbolic size is filled")
    _bounded(math.prod(float(size) for size in dims))
    return np.full(tuple(int(size) for size in dims), value)


def _tile(_node: Node, x: Array, repeats: Array) -> Array:
    _bounded(math.prod(float(count) for count in repeats) * max(x.size, 1))
    return np.tile(x, repeats)


def _range(_node: Node, start: Array, limit: Array, delta: Array) -> Array:
    if not float(delta):
        raise InputError("a range with step zero")
    _bounded(abs((float(limit) - float(start)) / float(delta)))
    made: Array = np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)
    return made


def _broadcast(_node: Node, x: Array, shape: Array) -> Array:
    _bounded(math.prod(float(size) for size in shape))
    return np.broadcast_to(x, tuple(int(size) for size in shape))


def _cast(node: Node, x: Array) -> Array:
    return x if x.dtype == object else x.astype(node.type("DstT"))


def _pack(node: Node, *parts: Array) -> Array:
    return np.stack(parts, axis=node.whole("axis", 0))


def _unpack(node: Node, x: Array) -> list[Array]:
    axis = node.whole("axis", 0)
    return [np.asarray(np.take(x, i, axis=axis)) for i in range(x.shape[axis])]


def _squeeze(node: Node, x: Array) -> Array:
    axes = node.wholes("squeeze_dims", [])
    return np.squeeze(x, tuple(axes) if axes else None)


def _slice(_node: Node, x: Array, begin: Array, size: Array) -> Array:
    stops = [None if n < 0 else b + n for b, n in zip(begin.tolist(), size.tolist(), strict=True)]
    return x[tuple(slice(b, stop) for b, stop in zip(begin.tolist(), stops, strict=True))]


def _gather(_node: Node, x: Array, indices: Array, axis: Array | None = None) -> Array:
    return np.asarray(np.take(x, indices, axis=0 if axis is None else int(axis)))


def _plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda _node, *operands: function(*operands)


def _product(x: Array, axis: Any, keepdims: bool) -> Any:
    return np.prod(x, axis=axis, keepdims=keepdims)


def _reciprocal_root(x: Array) -> Any:
    return (x.dtype.type(1) / np.sqrt(x)).astype(x.dtype)


FOLDS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("Identity", "StopGradient", "Snapshot"), _plainly(lambda x: x)),
    **dict.fromkeys(("Add", "AddV2"), _plainly(np.add)),
    "Sub": _plainly(np.subtract),
    "Mul": _plainly(np.multiply),
    "RealDiv": _plainly(np.divide),
    "FloorDiv": _plainly(np.floor_divide),
    "FloorMod": _plainly(np.mod),
    "Maximum": _plainly(np.maximum),
    "Minimum": _plainly(np.minimum),
    "Neg": _plainly(np.negative),
    "Abs": _plainly(np.abs),
    "Sqrt": _plainly(np.sqrt),
    "Rsqrt": _plainly(_reciprocal_root),
    "Square": _plainly(np.square),
    "Prod": _reduce(_product),
    "Sum": _reduce(np.sum),
    "Max": _reduce(np.max),
    "Min": _reduce(np.min),
    "Cast": _cast,
    "Pack": _pack,
    "Unpack": _unpack,
    "ConcatV2": lambda _node, *parts: np.concatenate(parts[:-1], axis=int(parts[-1])),
    "Reshape": lambda _node, x, shape: x.reshape([int(size) for size in shape]),
    "ExpandDims": lambda _node, x, axis: np.expand_dims(x, int(axis.reshape(()))),
    "Squeeze": _squeeze,
    "Transpose": lambda _node, x, axes: np.transpose(x, axes.tolist()),
    "StridedSlice": lambda node, x, *parts: np.asarray(x[picked(node, parts)]),
    "Slice": _slice,
    "GatherV2": _gather,
    "Gather": _gather,
    "Fill": _fill,
    "Tile": _tile,
    "Range": _range,
    "BroadcastTo": _broadcast,
}
"""Operators that are computed at import when all their operands are known."""
