"""Multiply-accumulates of a call. A dimension that is not known at compile time counts as one."""

from __future__ import annotations

from math import prod

from tvm_qat.ir import Expr, attrs_of, op_name, shape_of

_CONV = frozenset(f"{dialect}.conv{n}d" for dialect in ("qnn", "relax.nn") for n in (1, 2, 3))
_TRANSPOSED = frozenset(["qnn.conv2d_transpose", *(f"relax.nn.conv{n}d_transpose" for n in (1, 2, 3))])
_MATMUL = frozenset(["qnn.batch_matmul", "qnn.dense", "relax.matmul"])


def macs_of(call: Expr) -> int:
    """0 for everything that is not a convolution or a matrix product."""
    name = op_name(call)
    if name in _CONV:
        return _size(call) * _per_channel(call, "O")
    if name in _TRANSPOSED:
        return _size(call.args[0]) * _per_channel(call, "I")
    if name in _MATMUL:
        return _size(call) * _inner(call.args[0])
    return 0


def _per_channel(call: Expr, channel: str) -> int:
    """Elements of the weight that belong to one channel (of the output `O` or of the input `I`)."""
    sizes = _sizes(call.args[1])
    sizes.pop(str(attrs_of(call)["kernel_layout"]).index(channel))
    return prod(sizes)


def _inner(data: Expr) -> int:
    sizes = _sizes(data)
    return sizes[-1] if sizes else 1


def _size(expr: Expr) -> int:
    return prod(_sizes(expr))


def _sizes(expr: Expr) -> list[int]:
    return [size if isinstance(size, int) else 1 for size in shape_of(expr) or ()]
