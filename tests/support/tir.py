"""What a PrimFunc computes, read off its statements: sums of products by dtype and instruction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm_ffi

from tvm_qat.ir import tvm

_NOT_DATA = frozenset(
    ["span", "ty", "op", "attrs", "indices", "region", "min", "extent", "step", "loop_var", "condition",
     "predicate", "iter_values", "iter_vars", "reads", "writes", "annotations", "lanes", "stride"]
)  # fmt: skip
"""Fields that say where and how often something is computed, not what."""

_INTRINSICS = ("tirx.call_llvm_pure_intrin", "tirx.call_llvm_intrin")


@dataclass(frozen=True)
class Product:
    """A store `acc = acc + a * b`: the dtype that is added up, and the instruction if it is named."""

    dtype: str
    instruction: str


def products(func: Any) -> list[Product]:
    """Every sum of products of a PrimFunc."""
    found = []
    for store in _nodes(func.body):
        if not isinstance(store, tvm.tirx.BufferStore):
            continue
        nodes = list(_nodes(store.value))
        loads = [node.source for node in nodes if type(node).__name__ == "TensorLoad"]
        if not any(load.same_as(store.buffer) for load in loads):
            continue
        named = [name for node in nodes for name in _instruction(node)]
        if named or any(isinstance(node, tvm.tirx.Mul) for node in nodes):
            found.append(Product(_scalar(store.buffer.dtype), named[0] if named else ""))
    return found


def tensors(func: Any) -> list[str]:
    """The dtypes of a PrimFunc's parameters that are tensors; its result is the last."""
    return [_scalar(param.ty.dtype) for param in func.params if hasattr(param.ty, "dtype")]


def _scalar(dtype: Any) -> str:
    return str(dtype).split("x")[0]


def _instruction(node: Any) -> Iterator[str]:
    if isinstance(node, tvm.ir.Call) and str(getattr(node.op, "name", "")) in _INTRINSICS:
        name = str(tvm.target.codegen.llvm_get_intrinsic_name(int(node.args[0])))
        if any(part in name for part in ("vpdpbusd", "pmadd")):
            yield name


def _nodes(node: Any) -> Iterator[Any]:
    """A statement or expression and all that it computes."""
    if not isinstance(node, tvm_ffi.Object):
        return
    if isinstance(node, tvm.ir.Array):
        for each in node:
            yield from _nodes(each)
        return
    yield node
    info = getattr(type(node), "__tvm_ffi_type_info__", None)
    while info is not None:
        for field in info.fields:
            if field.name not in _NOT_DATA:
                yield from _nodes(getattr(node, field.name))
        info = getattr(info, "parent_type_info", None)
