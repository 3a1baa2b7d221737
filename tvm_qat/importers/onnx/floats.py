"""Float operators that TVM's converters lower too early (Clip, Pad, Tile become opaque kernels),
or whose older opsets they write in a roundabout way."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.onnx.grids import emit
from tvm_qat.importers.onnx.node import Node
from tvm_qat.importers.onnx.stock import stock
from tvm_qat.ir import BlockBuilder, Expr, const, dtype_of, relax, shape_of, static_shape


def clip(builder: BlockBuilder, node: Node) -> Expr:
    """Bounds are attributes before opset 11, inputs since; a missing one does not bound."""
    data = node.require(0)
    low, high = _bound(node, 1, "min"), _bound(node, 2, "max")
    if isinstance(low, float | int) and isinstance(high, float | int):
        return relax.op.clip(data, low, high)
    for bound, function in ((low, relax.op.maximum), (high, relax.op.minimum)):
        if bound is not None:
            value = const(bound, dtype_of(data)) if isinstance(bound, float | int) else bound
            data = emit(builder, function(data, value))
    return data


def _bound(node: Node, index: int, name: str) -> Any:
    """A number, an expression computed at run time, or None."""
    if name in node.attrs:
        return node.real(name, 0.0)
    values = node.constant(index)
    if values is None:
        return node.optional(index)
    if values.size != 1:
        raise InputError(f"{name} has {values.size} elements, not one")
    return values.reshape(()).item()


def pad(builder: BlockBuilder, node: Node) -> Expr:
    """Pads are an attribute before opset 11, an input since; `axes` names a part of them."""
    shape, mode = node.shape(0), node.attrs.get("mode", "constant")
    pads = node.attrs.get("pads") if node.opset < 11 else node.constant(1)
    if pads is None:
        raise UnsupportedError("pads that are computed at run time are not supported")
    before, after = _all_pads(node, np.asarray(pads).reshape(-1).tolist(), len(shape))
    data = _cropped(builder, node.require(0), before, after)
    before, after = [max(p, 0) for p in before], [max(p, 0) for p in after]
    widths = [width for pair in zip(before, after, strict=True) for width in pair]
    if mode == "constant":
        return relax.op.nn.pad(data, widths, mode, pad_value=_pad_value(node))
    if mode == "reflect":
        return relax.op.nn.pad(data, widths, "reflect")
    if mode == "edge":
        return relax.op.nn.pad(data, widths, "replicate")
    raise UnsupportedError(f"mode {mode!r} is not supported")


def _pad_value(node: Node) -> Any:
    if node.opset < 11:
        return node.real("value", 0.0)
    if node.optional(2) is None:
        return 0
    value = node.constant(2)
    if value is None:
        raise UnsupportedError("a padding value that is computed at run time is not supported")
    return value.reshape(-1)[0].item() if value.size else 0


def _all_pads(node: Node, pads: list[int], rank: int) -> tuple[list[int], list[int]]:
    """(before, after) for every axis."""
    axes = list(range(rank))
    if node.optional(3) is not None:
        given = node.constant(3)
        if given is None:
            raise UnsupportedError("axes that are computed at run time are not supported")
        axes = [int(axis) for axis in given.reshape(-1)]
    if len(pads) != 2 * len(axes) or any(not -rank <= axis < rank for axis in axes):
        raise InputError(f"{len(pads)} pads do not fit {len(axes)} axes of rank {rank}")
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = int(pads[i]), int(pads[i + len(axes)])
    return before, after


def _cropped(builder: BlockBuilder, data: Expr, before: list[int], after: list[int]) -> Expr:
    """Negative pads remove elements."""
    axes = [i for i, pair in enumerate(zip(before, after, strict=True)) if min(pair) < 0]
    if not axes:
        return data
    shape = static_shape(data)
    if shape is None:
        raise UnsupportedError("negative pads of a tensor of unknown shape are not supported")
    begin = [max(-before[i], 0) for i in axes]
    end = [shape[i] - max(-after[i], 0) for i in axes]
    return emit(builder, relax.op.strided_slice(data, axes, begin, end))


def tile(_builder: BlockBuilder, node: Node) -> Expr:
    repeats = node.constant(1)
    if repeats is None:
        raise UnsupportedError("repeats that are computed at run time are not supported")
    if repeats.size != len(node.shape(0)):
        raise InputError(f"{repeats.size} repeats for rank {len(node.shape(0))}")
    return relax.op.tile(node.require(0), [int(count) for count in repeats])


def softmax(builder: BlockBuilder, node: Node) -> Expr:
    return softmax_on(builder, node, node.require(0), node.opset)


def softmax_on(builder: BlockBuilder, node: Node, data: Expr, opset: int) -> Expr:
    """Over one axis since opset 13; before, over all axes from `axis` on, seen as one."""
    shape = shape_of(data)
    if shape is None:
        raise UnsupportedError("softmax of a tensor of unknown rank is not supported")
    axis = node.axis(-1 if opset >= 13 else 1, len(shape))
    if opset >= 13 or axis == len(shape) - 1:
        return relax.op.nn.softmax(data, axis)
    tail = shape[axis:]
    if not all(isinstance(size, int) for size in tail):
        raise UnsupportedError("softmax over dimensions of unknown size is not supported")
    flat = emit(builder, relax.op.reshape(data, (*shape[:axis], int(np.prod(tail)))))
    return relax.op.reshape(emit(builder, relax.op.nn.softmax(flat, -1)), shape)


def gather(builder: BlockBuilder, node: Node) -> Expr:
    """Negative indices count from the end. Of a shape: TVM's converter, which keeps it symbolic."""
    data, indices = node.require(0), node.constant(1)
    if dtype_of(data) == "":
        return stock(builder, node)
    shape = node.shape(0)
    axis = node.axis(0, len(shape))
    if indices is None:
        return relax.op.take(data, node.require(1), axis=axis, mode="wrap")
    size = shape[axis]
    low, high = int(indices.min(initial=0)), int(indices.max(initial=0))
    if isinstance(size, int) and not (-size <= low and high < size):
        raise InputError(f"an index outside of {size} elements")
    if low >= 0 or isinstance(size, int):
        indices = np.where(indices < 0, indices + (size if isinstance(size, int) else 0), indices)
        return relax.op.take(data, const(indices), axis=axis, mode="clip")
    return relax.op.take(data, node.require(1), axis=axis, mode="wrap")


def einsum(_builder: BlockBuilder, node: Node) -> Expr:
    return relax.op.einsum([node.require(i) for i in range(len(node.inputs))], node.attrs["equation"])


def power(builder: BlockBuilder, node: Node) -> Expr:
    """The exponent may have another type than the base, whose type the result has."""
    base, exponent = node.require(0), node.require(1)
    dtype = dtype_of(base)
    if not dtype.startswith(("float", "bfloat")):
        raise UnsupportedError(f"a power of {dtype} is not supported")
    if dtype_of(exponent) != dtype:
        values = node.constant(1)
        exponent = (
            const(values, dtype) if values is not None else emit(builder, relax.op.astype(exponent, dtype))
        )
    return relax.op.power(base, exponent)
