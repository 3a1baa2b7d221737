"""Parameters of `@main`: inputs of the model, or constants from the parameter file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier
from tvm_qat.importers.relay.load import Model
from tvm_qat.importers.relay.node import MOST_ELEMENTS
from tvm_qat.importers.relay.syntax import Tensor
from tvm_qat.ir import Expr, TensorType, Var, const, tvm

_DTYPES = (
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64", "bfloat16",
)  # fmt: skip


def parameters(
    model: Model, input_shapes: Mapping[str, Sequence[int]]
) -> tuple[dict[str, Var], dict[str, Expr]]:
    """(inputs, constants), by the printed name without `%`."""
    params = model.functions["main"].params
    names = [name for name, _ in params]
    if len(set(names)) != len(names):
        raise InputError("two parameters of @main have the same name")
    _check_names("the parameter file holds", model.params, names)
    _check_names("there is no input", input_shapes, [n for n in names if n not in model.params])
    taken: set[str] = set()
    inputs, known = {}, {}
    for name, kind in params:
        if not isinstance(kind, Tensor) or kind.dtype not in _DTYPES:
            raise UnsupportedError(f"parameter %{name} of @main has no tensor type of a supported dtype")
        if name in model.params:
            known[name] = _constant(model, name, kind)
            continue
        shape = _shape(name, kind, input_shapes.get(name))
        inputs[name] = Var(identifier(name, taken), TensorType(shape, kind.dtype))
    if not inputs:
        raise InputError("@main has no input: every parameter lies in the parameter file")
    return inputs, known


def _check_names(what: str, given: Mapping[str, object], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            close = get_close_matches(name, known, n=3) or list(known)[:5]
            reason = f"{what} {name!r}, which is no parameter of @main"
            raise InputError(located(reason, remedy=f"those like it: {', '.join(close)}"))


def _constant(model: Model, name: str, kind: Tensor) -> Expr:
    array = model.params[name]
    fits = len(kind.shape) == array.ndim and all(
        declared in (None, size) for declared, size in zip(kind.shape, array.shape, strict=True)
    )
    if not fits or str(array.dtype) != kind.dtype:
        declared = f"{kind.dtype} {list(kind.shape)}"
        reason = f"is {array.dtype} {list(array.shape)} in the parameter file, but {declared} in the text"
        raise InputError(f"parameter %{name} {reason}")
    return const(array)


def _shape(name: str, kind: Tensor, given: Sequence[int] | None) -> list[object]:
    """`?` is a symbolic dimension of its own, unless the caller says how long it is."""
    if given is None:
        shape: list[object] = [
            tvm.tirx.Var(f"{identifier(name, set())}_{i}", "int64") if size is None else size
            for i, size in enumerate(kind.shape)
        ]
    else:
        sizes = [int(size) for size in given]
        if len(sizes) != len(kind.shape) or any(
            size != declared for size, declared in zip(sizes, kind.shape, strict=True) if declared is not None
        ):
            raise InputError(f"the shape {sizes} that was asked for contradicts that of %{name}")
        shape = list(sizes)
    known = [size for size in shape if isinstance(size, int)]
    if min(known, default=1) < 1 or math.prod(known) > MOST_ELEMENTS:
        raise InputError(f"parameter %{name} has the shape {shape}")
    return shape
