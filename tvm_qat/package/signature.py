"""The inputs and outputs of a module as its user knows them, with the grids at its boundary.

A float input that is quantized first thing, perhaps after a transpose, carries the parameters of
that quantize; a float output that is dequantized last carries those of the dequantize. With them
a caller can count differences in steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tvm_qat.ir import (
    Call,
    Expr,
    Function,
    IRModule,
    Tuple,
    TupleType,
    Var,
    bindings_of,
    op_name,
    shape_of_type,
    tvm,
    uses_of,
)
from tvm_qat.package.meta import TensorInfo
from tvm_qat.qnn.params import params_of
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams

_SEEN_THROUGH = frozenset(["relax.permute_dims", "relax.reshape", "relax.expand_dims", "relax.squeeze"])
"""Operators that move values without touching them; per-channel parameters are not followed."""


def inputs_of(mod: IRModule) -> tuple[TensorInfo, ...]:
    """One TensorInfo for each parameter of main, named by its attribute `input_names`."""
    func = mod["main"]
    names = _names(func, "input_names", [param.name for param in func.params])
    uses = {id(func): uses_of(func)}
    begins = _initials(func)
    return tuple(
        replace(
            _info(name, param.ty, next(_grids_after(mod, func, param, uses), None)), initial=begins.get(name)
        )
        for name, param in zip(names, func.params, strict=True)
    )


def _initials(func: Function) -> dict[str, int | float]:
    """What the inputs begin with that carry a variable; main's attribute `input_initials`."""
    given = func.attrs is not None and "input_initials" in func.attrs
    return {str(name): value for name, value in func.attrs["input_initials"].items()} if given else {}


def outputs_of(mod: IRModule) -> tuple[TensorInfo, ...]:
    """One TensorInfo for each result of main, named by its attribute `output_names`."""
    func = mod["main"]
    ty = func.ret_ty
    types = list(ty.fields) if isinstance(ty, TupleType) else [ty]
    names = _names(func, "output_names", [f"output{i}" for i in range(len(types))])
    results = _results(func, len(types))
    return tuple(
        _info(name, ty, _grid_before(mod, func, result) if result is not None else None)
        for name, ty, result in zip(names, types, results, strict=True)
    )


def _names(func: Function, attribute: str, default: list[str]) -> list[str]:
    given = func.attrs is not None and attribute in func.attrs
    return [str(name) for name in func.attrs[attribute]] if given else default


def _info(name: str, ty: Any, grid: QParams | None) -> TensorInfo:
    shape = tuple(size if isinstance(size, int) else str(size) for size in shape_of_type(ty) or ())
    return TensorInfo(name, shape, str(ty.dtype), grid)


def _results(func: Function, count: int) -> list[Expr | None]:
    result = func.body.body
    values = {binding.var: binding.value for binding in bindings_of(func)}
    while isinstance(result, Var) and isinstance(values.get(result), Var | Tuple):
        result = values[result]
    if isinstance(result, Tuple):
        return list(result.fields)
    return [result] if count == 1 else [None] * count


def _grids_after(mod: IRModule, func: Function, var: Var, uses: dict[int, Any]) -> Iterator[QParams]:
    """The parameters under which the users of `var` read it, or to which they quantize it."""
    for user, call in uses.setdefault(id(func), uses_of(func)).get(var, ()):
        name = op_name(call)
        if name in _SEEN_THROUGH and user is not None:
            yield from _grids_after(mod, func, user, uses)
        elif name in OPS:
            role = "output" if name == "qnn.quantize" else "input"
            grid = _per_tensor(call, role) if call.args[0].same_as(var) else None
            yield from [grid] if grid is not None else []
        elif (inner := _callee(mod, call)) is not None:
            position = next(i for i, arg in enumerate(call.args) if arg.same_as(var))
            yield from _grids_after(mod, inner, inner.params[position], uses)


def _grid_before(mod: IRModule, func: Function, result: Expr) -> QParams | None:
    """The parameters of the integers that `result` is, or was made of."""
    values = {binding.var: binding.value for binding in bindings_of(func)}
    call: Expr = values.get(result)
    while isinstance(call, Var) or op_name(call) in _SEEN_THROUGH:
        call = values.get(call if isinstance(call, Var) else call.args[0])
    if (inner := _callee(mod, call)) is not None:
        return _grid_before(mod, inner, inner.body.body)
    if op_name(call) not in OPS:
        return None
    return _per_tensor(call, "input" if op_name(call) == "qnn.dequantize" else "output")


def _callee(mod: IRModule, call: Expr) -> Function | None:
    if not (isinstance(call, Call) and isinstance(call.op, tvm.ir.GlobalVar)):
        return None
    func = mod[call.op]
    return func if isinstance(func, Function) else None


def _per_tensor(call: Expr, role: str) -> QParams | None:
    if f"{role}_scale" not in OPS[op_name(call)].args:
        return None
    grid = params_of(call, role)
    return grid if grid is not None and not grid.per_channel else None
