"""Where the elements of a sum's operands lie in the tensors that the graph passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm_qat.ir import Shape
from tvm_qat.kernels.expressions import PrimExpr
from tvm_qat.kernels.fused import Fused
from tvm_qat.kernels.linear_spec import LinearSpec
from tvm_qat.kernels.loops import decode
from tvm_qat.kernels.operands import broadcast_index


def matrix_place(
    fused: Fused, lead: Shape, side: int, buffer: Any, batch: PrimExpr, inner: Sequence[PrimExpr]
) -> tuple[PrimExpr, ...]:
    """Index of an element of operand `side` of the anchor; its leading axes broadcast against `lead`."""
    _, axes = fused.origin(fused.anchor.args[side])
    index = (*decode(batch, lead), *inner)
    if axes is None:
        return broadcast_index(buffer.shape, index)
    moved = broadcast_index([buffer.shape[axis] for axis in axes], index)
    return tuple(moved[axes.index(axis)] for axis in range(len(axes)))


def weight_place(
    spec: LinearSpec, weight: Any, group: PrimExpr, o: PrimExpr, tap: Sequence[PrimExpr], i: PrimExpr
) -> tuple[PrimExpr, ...]:
    """Index of a weight without a batch of its own: output channel `o` of a group, input `i`."""
    if len(weight.shape) != len(spec.kernel_layout):  # a matrix behind axes of length 1
        return (*[0] * (len(weight.shape) - 2), i, o)
    places = {"O": group * spec.outer + o, "I": i}
    if spec.mirrored:
        tap = tuple(size - 1 - t for size, t in zip(spec.kernel, tap, strict=True))
        places = {"O": o, "I": group * spec.inner + i}
    places |= dict(zip("DHW", tap, strict=True))
    return tuple(places[letter] for letter in spec.kernel_layout)
