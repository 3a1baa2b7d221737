"""The masks of StridedSlice as one NumPy index."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import TypeAlias

from tvm_qat.errors import InputError, UnsupportedError
from tvm_qat.importers.tensorflow.model import Array
from tvm_qat.importers.tensorflow.node import Node

Index: TypeAlias = int | slice | EllipsisType | None


def picked(node: Node, parts: Sequence[Array]) -> tuple[Index, ...]:
    """parts: begin, end, strides."""
    if len(parts) != 3 or len({part.size for part in parts}) != 1:
        raise InputError("begin, end and strides differ in length")
    if any(part.dtype == object for part in parts):
        raise UnsupportedError("bounds that are only known at run time are not supported")
    begin, end, strides = (part.reshape(-1).tolist() for part in parts)
    masks = {name: node.whole(f"{name}_mask", 0) for name in _MASKS}

    def has(name: str, place: int) -> bool:
        return bool(masks[name] >> place & 1)

    index: list[Index] = []
    for i, step in enumerate(strides):
        if step == 0:
            raise InputError("a stride of zero")
        if has("ellipsis", i):
            index.append(Ellipsis)
        elif has("new_axis", i):
            index.append(None)
        elif has("shrink_axis", i):
            index.append(int(begin[i]))
        else:
            start = None if has("begin", i) else int(begin[i])
            index.append(slice(start, None if has("end", i) else int(end[i]), int(step)))
    return tuple(index)


_MASKS = ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
