"""Inputs of an exported program: parameters of `main`, and the tensors that the program holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node as Call

from tvm_qat.errors import InputError, UnsupportedError, located
from tvm_qat.importers.names import identifier
from tvm_qat.importers.torch.constants import dtype_name
from tvm_qat.ir import TensorType, Var, tvm

_STORED = (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR)


@dataclass(frozen=True)
class Inputs:
    """variables: parameters of `main` by the program's names. values: of every placeholder.

    output_names : one per returned value; None for what is no output of the user's.
    """

    file: str
    variables: dict[str, Var]
    values: dict[Call, Any]
    output_names: list[str | None]


def program_inputs(program: Any, file: str, input_shapes: Mapping[str, Sequence[int]]) -> Inputs:
    """A dimension that the program leaves open is one symbolic variable everywhere."""
    signature = program.graph_signature
    calls = {call.name: call for call in program.graph.nodes if call.op == "placeholder"}
    users = [spec.arg.name for spec in signature.input_specs if spec.kind == InputKind.USER_INPUT]
    _check_names(input_shapes, [name for name in users if name in calls], file)
    dims = _given_dims(calls, input_shapes, file)
    taken: set[str] = set()
    variables: dict[str, Var] = {}
    values: dict[Call, Any] = {}
    for spec in signature.input_specs:
        call = calls[spec.arg.name]
        if spec.kind in _STORED:
            values[call] = _stored(program, spec, file)
        elif spec.kind == InputKind.USER_INPUT and isinstance(call.meta.get("val"), torch.Tensor):
            values[call] = variables[call.name] = _variable(call, dims, taken, file)
        elif spec.kind == InputKind.USER_INPUT:
            values[call] = call.meta.get("val")
        else:
            reason = f"it holds a {spec.kind.name.lower()}, which is not supported"
            raise UnsupportedError(located(reason, file=file, node=f"'{call.name}'"))
    return Inputs(file, variables, values, _output_names(signature, file))


def _check_names(input_shapes: Mapping[str, Sequence[int]], names: list[str], file: str) -> None:
    unknown = sorted(set(input_shapes) - set(names))
    if unknown:
        reason = f"there is no input {unknown[0]!r} to give a shape"
        raise InputError(located(reason, file=file, remedy=f"the inputs are: {', '.join(names)}"))


def _stored(program: Any, spec: Any, file: str) -> torch.Tensor:
    found = program.state_dict.get(spec.target, program.constants.get(spec.target))
    if not isinstance(found, torch.Tensor):
        raise InputError(located(f"tensor {spec.target!r} is missing", file=file, remedy="export it again"))
    return found


def _variable(call: Call, dims: dict[Any, Any], taken: set[str], file: str) -> Var:
    tensor = call.meta["val"]
    try:
        shape = [_dimension(size, dims) for size in tensor.shape]
        return Var(identifier(call.name, taken), TensorType(shape, dtype_name(tensor.dtype)))
    except InputError as error:
        raise type(error)(located(str(error), file=file, node=f"'{call.name}' (input)")) from None


def _given_dims(
    calls: Mapping[str, Call], input_shapes: Mapping[str, Sequence[int]], file: str
) -> dict[Any, Any]:
    """Values of the program's symbols, from shapes that the caller gave."""
    dims: dict[Any, Any] = {}
    for name, shape in input_shapes.items():
        declared = calls[name].meta["val"].shape
        if len(declared) != len(shape):
            reason = f"the shape {list(shape)} that was asked for has not rank {len(declared)}"
            raise InputError(located(reason, file=file, node=f"'{name}' (input)"))
        for size, given in zip(declared, shape, strict=True):
            expr = size.node.expr if isinstance(size, torch.SymInt) else None
            value = int(given)
            fixed = int(size) if expr is None or not expr.free_symbols else None
            if expr is not None and expr.is_Symbol:
                fixed = dims.setdefault(expr, value)
            if value <= 0 or (fixed is not None and fixed != value):
                reason = (
                    f"the shape {list(shape)} that was asked for contradicts the exported {_text(declared)}"
                )
                remedy = "export with dynamic_shapes to leave a dimension open"
                raise InputError(located(reason, file=file, node=f"'{name}' (input)", remedy=remedy))
    return dims


def _text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _dimension(size: Any, dims: dict[Any, Any]) -> Any:
    """An int, or a TVM expression of the program's symbols."""
    if isinstance(size, int):
        return size
    return _expression(size.node.expr, dims)


def _expression(expr: Any, dims: dict[Any, Any]) -> Any:
    if expr.is_Integer:
        return int(expr)
    if expr.is_Symbol:
        return dims.setdefault(expr, tvm.tirx.Var(str(expr), "int64"))
    parts = [_expression(part, dims) for part in expr.args]
    if expr.is_Add:
        return sum(parts[1:], parts[0])
    if expr.is_Mul:
        product = parts[0]
        for part in parts[1:]:
            product = product * part
        return product
    raise UnsupportedError(f"a dimension of {expr} is not supported")


def _output_names(signature: Any, file: str) -> list[str | None]:
    names: list[str | None] = []
    for spec in signature.output_specs:
        if spec.kind == OutputKind.USER_INPUT_MUTATION:
            reason = "it writes into its input, which is not supported"
            raise UnsupportedError(located(reason, file=file, remedy="write it without in-place operators"))
        names.append(getattr(spec.arg, "name", "output") if spec.kind == OutputKind.USER_OUTPUT else None)
    return names
