"""Operators on elements one by one, at compile time where all operands are constants.

Relay's frontends leave products of scales to be computed (`multiply(0.02f, meta[...])`), so what
parameters are made of is folded here, in the dtype it is written in, as Relay's FoldConstant did.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.relay.binary import Array
from tvm_qat.importers.relay.node import Context, Converter, Node, Value
from tvm_qat.ir import Expr, array_of, const, dtype_of, is_const, relax

_INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "int64", "uint32", "uint64")
_FLOATS = ("float16", "float32", "float64", "bfloat16")
_LARGEST_CONSTANT = 1 << 26


def binary(function: Callable[[Expr, Expr], Expr], fold: Callable[[Array, Array], Array]) -> Converter:
    """Two tensors of one dtype, broadcast."""

    def convert(_context: Context, node: Node) -> Expr:
        x, y = node.tensor(0), node.tensor(1)
        if dtype_of(x) != dtype_of(y):
            raise InputError(f"its operands are {dtype_of(x)} and {dtype_of(y)}")
        if is_const(x) and is_const(y):
            return const(_folded(fold, array_of(x), array_of(y)))
        return function(x, y)

    return convert


def _folded(function: Callable[..., Any], *operands: Array) -> Array:
    dtype = operands[0].dtype
    size = np.prod(np.broadcast_shapes(*(o.shape for o in operands)), dtype=np.float64)
    if size > _LARGEST_CONSTANT:
        raise InputError(f"it makes a constant of {size:g} elements")
    with np.errstate(all="ignore"):
        return np.asarray(function(*operands)).astype(dtype)


def unary(function: Callable[[Expr], Expr], fold: Callable[[Array], Array] | None = None) -> Converter:
    """fold : the same in NumPy, for what parameters are computed with."""

    def convert(_context: Context, node: Node) -> Expr:
        x = node.tensor(0)
        if fold is not None and is_const(x):
            return const(_folded(fold, array_of(x)))
        return function(x)

    return convert


def divide(context: Context, node: Node) -> Expr:
    """Of floats only: Relay's division of integers truncates."""
    if not node.is_float(0):
        raise UnsupportedError(f"division of {node.dtype(0)} is not supported")
    return binary(relax.op.divide, np.divide)(context, node)


def shift(function: Callable[[Expr, Expr], Expr]) -> Converter:
    """left_shift and right_shift by a constant below the width of the dtype."""

    def convert(_context: Context, node: Node) -> Expr:
        bits = node.constant(1, "number of bits")
        if node.dtype(0) not in _INTEGERS or not np.issubdtype(bits.dtype, np.integer):
            raise InputError(f"a shift of {node.dtype(0)} by {bits.dtype}")
        if bits.size == 0 or bits.min() < 0 or bits.max() >= int(np.iinfo(node.dtype(0)).bits):
            raise InputError(f"a shift of {node.dtype(0)} by {bits.max(initial=0)} bits")
        return function(node.tensor(0), const(bits.astype(node.dtype(0))))

    return convert


def clip(_context: Context, node: Node) -> Expr:
    low, high = node.real("a_min", -np.inf), node.real("a_max", np.inf)
    if not low <= high:
        raise InputError(f"it clips to [{low:g}, {high:g}]")
    x = node.tensor(0)
    if node.is_float(0):
        return relax.op.clip(x, low, high)
    if node.dtype(0) not in _INTEGERS:
        raise InputError(f"it clips {node.dtype(0)}")
    info = np.iinfo(node.dtype(0))
    least = int(np.ceil(max(low, float(info.min))))
    most = int(info.max) if high >= float(info.max) else int(np.floor(high))
    if least > most:
        raise InputError(f"no {node.dtype(0)} lies in [{low:g}, {high:g}]")
    whole = (least, most) == (int(info.min), int(info.max))
    return x if whole else relax.op.clip(x, least, most)


def cast(context: Context, node: Node) -> Expr:
    """A cast to int32 remembers what it widened, for the pooling and the cast back that may follow."""
    x, dtype = node.tensor(0), node.text("dtype", "")
    if dtype not in (*_INTEGERS, *_FLOATS, "bool"):
        raise UnsupportedError(f"a cast to {dtype!r} is not supported")
    if dtype == dtype_of(x):
        return x
    if is_const(x):
        with np.errstate(all="ignore"):
            return const(array_of(x).astype(dtype)) if dtype != "bfloat16" else relax.op.astype(x, dtype)
    source = context.narrow.get(x)
    if source is not None and dtype_of(source) == dtype:
        return source
    wide = relax.op.astype(x, dtype)
    return widened(context, x) if dtype == "int32" and dtype_of(x) in ("int8", "uint8", "int16") else wide


def widened(context: Context, narrow: Expr) -> Expr:
    """`narrow` in int32, remembered."""
    wide = context.write(relax.op.astype(narrow, "int32"))
    context.narrow[wide] = narrow
    return wide


def identity(_context: Context, node: Node) -> Value:
    return node.args[0] if node.args else node.tensor(0)


def relu(_context: Context, node: Node) -> Expr:
    """Of integers it is a maximum with zero."""
    if node.is_float(0):
        return relax.op.nn.relu(node.tensor(0))
    return relax.op.maximum(node.tensor(0), const(0, node.dtype(0)))


def leaky_relu(_context: Context, node: Node) -> Expr:
    return relax.op.nn.leakyrelu(_real(node), node.real("alpha", 0.01))


def prelu(_context: Context, node: Node) -> Expr:
    return relax.op.nn.prelu(_real(node), node.tensor(1), node.axis("axis", 1, len(node.shape(0))))


def softmax(_context: Context, node: Node) -> Expr:
    return relax.op.nn.softmax(_real(node), node.axis("axis", -1, len(node.shape(0))))


def _real(node: Node) -> Expr:
    if not node.is_float(0):
        raise UnsupportedError(f"{node.op} of {node.dtype(0)} is not supported")
    return node.tensor(0)


def batch_norm(context: Context, node: Node) -> Value:
    """data, gamma, beta, mean, variance; Relay's tuple of three."""
    axis = node.axis("axis", 1, len(node.shape(0)))
    size = node.shape(0)[axis]
    if any(node.shape(i) != (size,) for i in range(1, 5)):
        raise InputError(f"its parameters do not have the {size} channels of axis {axis}")
    return relax.op.nn.batch_norm(
        _real(node), *(node.tensor(i) for i in range(1, 5)), axis=axis,
        epsilon=node.real("epsilon", 1e-5), center=node.flag("center", True),
        scale=node.flag("scale", True), training=False,
    )  # fmt: skip


def dropout(_context: Context, node: Node) -> Value:
    """The tensor itself, and a mask that nothing reads at inference."""
    x = node.tensor(0)
    return (x, x)


def layer_norm(_context: Context, node: Node) -> Expr:
    axis = node.axis("axis", -1, len(node.shape(0)))
    operands = (node.tensor(i) for i in range(3))
    return relax.op.nn.layer_norm(*operands, axes=[axis], epsilon=node.real("epsilon", 1e-5))


def full(_context: Context, node: Node) -> Expr:
    """A constant of one value."""
    value = node.constant(0, "value").reshape(-1)
    shape, dtype = node.wholes("shape", None), node.text("dtype", "") or str(value.dtype)
    return _filled(value[:1], shape, dtype)


def filled(number: int) -> Converter:
    """zeros and ones."""
    return lambda _context, node: _filled(
        np.asarray([number]), node.wholes("shape", None), node.text("dtype", "float32")
    )


def _filled(value: Array, shape: list[int], dtype: str) -> Expr:
    if dtype not in (*_INTEGERS, *_FLOATS) or min(shape, default=1) < 0 or value.size != 1:
        raise InputError(f"a constant of shape {shape} and type {dtype!r}")
    if np.prod(shape, dtype=np.float64) > _LARGEST_CONSTANT:
        raise InputError(f"it makes a constant of shape {shape}")
    return const(np.full(shape, value[0]).astype(dtype))


def where(_context: Context, node: Node) -> Expr:
    condition = node.tensor(0)
    if dtype_of(condition) != "bool":
        raise UnsupportedError(f"a condition of type {dtype_of(condition)} is not supported")
    return relax.op.where(condition, node.tensor(1), node.tensor(2))
