"""Evaluates a Relax module binding by binding: the oracle for whole models.

Operators of the dialect are evaluated by their NumPy reference; every other operator is compiled
by itself for the plainest target, since exponentials and sums of floats are defined by our kernels.
On the imported module this gives the simulation (what training saw), on the folded module the
integer result that compiled code must repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat import kernels
from tvm_qat.errors import InputError
from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    TensorType,
    Tuple,
    TupleGetItem,
    Var,
    array_of,
    bindings_of,
    define,
    dtype_of,
    is_const,
    op_name,
    relax,
    shape_of,
    tvm,
    uses_of,
)
from tvm_qat.package.quiet import quiet
from tvm_qat.qnn.reference import evaluate as evaluate_qnn
from tvm_qat.qnn.table import OPS

Array = npt.NDArray[Any]
Observe = Callable[[Var, Expr, Any], None]


def evaluate_module(
    mod: IRModule, inputs: Mapping[str, Array] | Sequence[Array], observe: Observe | None = None
) -> list[Array]:
    """The outputs of `main` for NumPy inputs, in order.

    inputs : arrays in the order of main's parameters, or by name (see `input_names`).
    observe : called with (variable, expression, value) after each binding of main.

    Raises InputError if inputs are missing or do not fit their parameters.
    """
    evaluation = Evaluation(mod, inputs)
    for step in evaluation:
        if observe is not None:
            observe(*step)
    return evaluation.outputs()


class Evaluation:
    """One walk over `main`: each step gives (variable, expression, value) of a binding.

    A value is dropped after its last reader, so that memory holds what is still needed and no more.
    Inputs and errors are those of `evaluate_module`.
    """

    def __init__(self, mod: IRModule, inputs: Mapping[str, Array] | Sequence[Array]) -> None:
        func = mod["main"]
        arrays = [np.asarray(array) for array in _in_order(func, inputs)]
        _check_inputs(func, arrays)
        self._mod = mod
        self._func = _specialized(func, arrays)
        self._env: dict[Var, Any] = dict(zip(self._func.params, arrays, strict=True))

    def __iter__(self) -> Iterator[tuple[Var, Expr, Any]]:
        last = _last_readers(self._func)
        for place, binding in enumerate(bindings_of(self._func)):
            self._env[binding.var] = _value(self._mod, binding.value, self._env)
            yield binding.var, binding.value, self._env[binding.var]
            for var in last.get(place, ()):
                del self._env[var]

    def value_of(self, expr: Expr) -> Any:
        """What an operand of the binding at hand is."""
        return _value(self._mod, expr, self._env)

    def replace(self, var: Var, value: Any) -> None:
        """Later bindings read `value` in place of what `var` was found to be."""
        self._env[var] = value

    def outputs(self) -> list[Array]:
        """In order, after the last step."""
        result = _value(self._mod, self._func.body.body, self._env)
        return list(result) if isinstance(result, tuple) else [result]


def _last_readers(func: Function) -> dict[int, list[Var]]:
    """By the position of a binding: the variables that nothing reads after it."""
    places = {binding.var: place for place, binding in enumerate(bindings_of(func))}
    last = dict(places)
    for var, users in uses_of(func).items():
        reading = [places[user] for user, _ in users if user is not None]
        kept = any(user is None for user, _ in users)
        last[var] = len(places) if kept else max([last.get(var, 0), *reading])
    found: dict[int, list[Var]] = {}
    for var, place in last.items():
        found.setdefault(place, []).append(var)
    return found


def _in_order(func: Function, inputs: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(func.params):
            raise InputError(f"{len(inputs)} inputs for a model with {len(func.params)}")
        return list(inputs)
    names = input_names(func)
    missing = [name for name in names if name not in inputs]
    if missing:
        raise InputError(f"no data for input {', '.join(missing)}")
    return [inputs[name] for name in names]


def input_names(func: Function) -> list[str]:
    """Main's attribute of this name, which importers set; else what its parameters are called."""
    given = func.attrs is not None and "input_names" in func.attrs
    return [str(name) for name in func.attrs["input_names"]] if given else [p.name for p in func.params]


def _dimensions(func: Function, arrays: Sequence[Any]) -> dict[Any, int]:
    """The value of every symbolic dimension, read off the arrays."""
    known: dict[Any, int] = {}
    for param, array in zip(func.params, arrays, strict=True):
        shape = shape_of(param)
        for dim, size in zip(shape, array.shape, strict=False) if shape else ():
            if isinstance(dim, tvm.tirx.Var):
                known[dim] = size
    return known


def _check_inputs(func: Function, arrays: Sequence[Array]) -> None:
    known: dict[Any, int] = {}
    for param, array in zip(func.params, arrays, strict=True):
        shape, dtype = shape_of(param), dtype_of(param)
        fits = shape is None or len(shape) == array.ndim
        for dim, size in zip(shape or (), array.shape, strict=False):
            if isinstance(dim, int):
                fits &= dim == size
            elif isinstance(dim, tvm.tirx.Var):
                fits &= known.setdefault(dim, size) == size
        if not fits:
            wanted = ", ".join(map(str, shape or ()))
            raise InputError(f"input {param.name} has shape {array.shape}, not ({wanted})")
        if dtype and str(array.dtype) != dtype:
            raise InputError(f"input {param.name} is {array.dtype}, not {dtype}")


def _specialized(func: Function, arrays: Sequence[Any]) -> Function:
    known = _dimensions(func, arrays)
    return func.bind_symbolic_vars(known) if known else func


def _run(mod: IRModule, func: Function, arrays: Sequence[Any]) -> Any:
    func = _specialized(func, arrays)
    env: dict[Var, Any] = dict(zip(func.params, arrays, strict=True))
    for binding in bindings_of(func):
        env[binding.var] = _value(mod, binding.value, env)
    return _value(mod, func.body.body, env)


def _value(mod: IRModule, expr: Expr, env: dict[Var, Any]) -> Any:
    if isinstance(expr, Var):
        return env[expr]
    if is_const(expr):
        return array_of(expr)
    if isinstance(expr, Tuple):
        return tuple(_value(mod, field, env) for field in expr.fields)
    if isinstance(expr, TupleGetItem):
        return _value(mod, expr.tuple_value, env)[expr.index]
    if not isinstance(expr, Call):
        return expr
    operands = [_value(mod, arg, env) for arg in expr.args]
    if op_name(expr) in OPS:
        return evaluate_qnn(expr, operands)
    if isinstance(expr.op, tvm.ir.GlobalVar) and isinstance(mod[expr.op], Function):
        return _run(mod, mod[expr.op], operands)
    return _evaluate_float(mod, expr, operands)


_compiled: dict[str, Any] = {}
_TARGET = tvm.target.Target("llvm")


def _evaluate_float(mod: IRModule, call: Expr, operands: Sequence[Any]) -> Any:
    """One ordinary call, compiled alone; array operands become parameters."""
    alone, tensors = _module_of(call, operands)
    key = alone.script(show_meta=True)
    if key not in _compiled:
        with tvm.transform.PassContext(opt_level=0), quiet():
            lowered = kernels.finish(_TARGET)(kernels.lower(alone, _TARGET))
            executable = relax.build(lowered, target=_TARGET, relax_pipeline=None)
        _compiled[key] = relax.VirtualMachine(executable, tvm.cpu())
    result = _compiled[key]["main"](*[tvm.runtime.tensor(np.asarray(t, order="C")) for t in tensors])
    if hasattr(result, "numpy"):
        return result.numpy()
    return tuple(part.numpy() for part in result)


def _module_of(call: Expr, operands: Sequence[Any]) -> tuple[IRModule, list[Array]]:
    params: list[Var] = []
    tensors: list[Array] = []

    def parameter(value: Any) -> Expr:
        if isinstance(value, tuple):
            return Tuple([parameter(part) for part in value])
        if not isinstance(value, np.ndarray | np.generic):
            return value
        params.append(Var(f"p{len(params)}", TensorType(value.shape, str(value.dtype))))
        tensors.append(np.asarray(value))
        return params[-1]

    args = [parameter(value) for value in operands]
    builder, same = BlockBuilder(), Call(call.op, args, call.attrs, call.ty_args)
    define(builder, "main", params, lambda: builder.emit_output(same))
    return builder.get(), tensors
