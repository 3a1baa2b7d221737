"""All kernels of a function whose shapes are known, behind one call.

    storage = alloc_storage(16384)                  y = alloc_tensor(...)
    a = alloc_tensor(storage, 0, ...)               workspace = alloc_tensor(16384)
    conv(x, weights, bias, a)                ->     constants = tvm_qat_constants()
    y = alloc_tensor(...)                           tvm_qat_run(x, y, workspace, constants, 0, 2)
    dense(a, weights1, y)                           return y
    return y

`tvm_qat_run` is a PrimFunc that calls the kernels `first` to `last - 1` in order, on addresses that
are known when it is compiled but for those of its arguments. What TVM's virtual machine does for
each kernel (allocate, look up, count references) falls away.

Functions with symbolic shapes, or with calls of anything but kernels, go on calling their kernels
themselves; only the constants leave them (see constant_block).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import (
    BlockBuilder,
    Call,
    Expr,
    Function,
    IRModule,
    Tuple,
    Var,
    bindings_of,
    dtype_of,
    is_const,
    op_name,
    operands,
    relax,
    static_shape,
    tvm,
)
from tvm_qat.kernels.constant_block import (
    ALIGNMENT,
    BLOCK,
    ConstantBlock,
    address,
    bind_constants,
    is_kernel_call,
)
from tvm_qat.kernels.run_func import WORKSPACE, Place, Step, run_func
from tvm_qat.kernels.sources import PLACES

RUN = "tvm_qat_run"
"""Symbol of the function that calls the kernels."""

SCHEDULE = "qat.schedule"
"""Attribute of a module: what `tvm_qat_run` takes and does, in JSON."""


@tvm.transform.module_pass(opt_level=0, name="OneCall")
class OneCall:
    """Applies to `main`: no importer makes another function that is left by now."""

    def transform_module(self, mod: IRModule, _context: Any) -> IRModule:
        main = mod["main"]
        try:
            plan = plan_of(main)
        except _NotPlanned:
            return bind_constants(mod)
        builder = BlockBuilder(mod)
        run = builder.add_func(run_func(RUN, plan.arguments, plan.size, plan.steps), RUN)
        builder.update_func(mod.get_global_var("main"), _caller(main, plan, run))
        schedule = json.dumps(_schedule(mod, plan, len(main.params)))
        return plan.constants.attached_to(builder.get()).with_attr(SCHEDULE, schedule)


class _NotPlanned(Exception):
    """Something is not known before the model runs."""


@dataclass
class _Plan:
    """Where everything lies, and in which order it is worked on.

    variables, arguments : the tensors that come from outside: parameters, then what the caller
        allocates. kept : bindings that the caller may need for its result. size : of the
        workspace, in bytes; never 0, because the code that TVM makes refuses a null address.
    """

    variables: list[Var] = field(default_factory=list)
    arguments: list[Place] = field(default_factory=list)
    places: dict[Var, Place] = field(default_factory=dict)
    storages: dict[Var, int] = field(default_factory=dict)
    tuples: dict[Var, Tuple] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)
    size: int = ALIGNMENT
    constants: ConstantBlock = field(default_factory=ConstantBlock)

    def place(self, expr: Expr) -> Place:
        if is_const(expr):
            return self.constants.place(expr)
        if expr not in self.places:
            raise _NotPlanned
        return self.places[expr]


def plan_of(func: Function) -> _Plan:
    """Raises _NotPlanned."""
    plan = _Plan()
    for param in func.params:
        _argue(plan, param)
    for binding in bindings_of(func):
        _VISITS.get(_kind(binding.value), _refuse)(plan, binding)
    plan.kept = _needed(plan, func.body.body)
    if not plan.steps:
        raise _NotPlanned
    return plan


def _kind(value: Expr) -> str:
    return "kernel" if is_kernel_call(value) else op_name(value) or type(value).__name__


def _refuse(_plan: _Plan, _binding: Any) -> None:
    raise _NotPlanned


def _argue(plan: _Plan, var: Var) -> None:
    """Make `var` an argument."""
    plan.places[var] = Place(len(plan.arguments), 0, *_type_of(var))
    plan.variables.append(var)
    plan.arguments.append(plan.places[var])


def _type_of(var: Var) -> tuple[tuple[int, ...], str]:
    shape = static_shape(var)
    if shape is None:
        raise _NotPlanned
    return shape, dtype_of(var)


def _storage(plan: _Plan, binding: Any) -> None:
    (size,) = binding.value.args[0].values
    if not isinstance(size, tvm.tirx.IntImm):
        raise _NotPlanned
    plan.storages[binding.var] = plan.size
    plan.size += -(-int(size) // ALIGNMENT) * ALIGNMENT


def _inner_tensor(plan: _Plan, binding: Any) -> None:
    storage, offset = binding.value.args[:2]
    start = plan.storages[storage] + int(offset)
    plan.places[binding.var] = Place(WORKSPACE, start, *_type_of(binding.var))


def _outer_tensor(plan: _Plan, binding: Any) -> None:
    _argue(plan, binding.var)
    plan.kept.append(binding)


def _kernel(plan: _Plan, binding: Any) -> None:
    call = binding.value
    plan.steps.append(Step(str(call.op.name_hint), tuple(plan.place(arg) for arg in call.args)))


def _view(plan: _Plan, binding: Any) -> None:
    """A reshape, or another name of the same tensor."""
    value = binding.value
    source = plan.place(value if isinstance(value, Var) else value.args[0])
    plan.places[binding.var] = Place(source.base, source.offset, *_type_of(binding.var))
    plan.kept.append(binding)


def _tuple(plan: _Plan, binding: Any) -> None:
    plan.tuples[binding.var] = binding.value
    plan.kept.append(binding)


def _field(plan: _Plan, binding: Any) -> None:
    whole = plan.tuples.get(binding.value.tuple_value)
    if whole is None:
        raise _NotPlanned
    plan.places[binding.var] = plan.place(whole.fields[binding.value.index])
    plan.kept.append(binding)


_VISITS = {
    "relax.memory.alloc_storage": _storage,
    "relax.memory.alloc_tensor": _inner_tensor,
    "relax.builtin.alloc_tensor": _outer_tensor,
    "kernel": _kernel,
    "relax.reshape": _view,
    "Var": _view,
    "DataflowVar": _view,
    "Tuple": _tuple,
    "TupleGetItem": _field,
}


def _needed(plan: _Plan, result: Expr) -> list[Any]:
    """The bindings that the result is made by, and those of arguments, in order."""
    needed = {*plan.variables, *_variables(result)}
    for binding in reversed(plan.kept):
        if binding.var in needed:
            needed |= _variables(binding.value)
    if any(plan.places[var].base == WORKSPACE for var in needed if var in plan.places):
        raise _NotPlanned
    return [binding for binding in plan.kept if binding.var in needed]


def _variables(expr: Expr) -> set[Var]:
    if isinstance(expr, Var):
        return {expr}
    return {var for child in operands(expr) for var in _variables(child)}


def _schedule(mod: IRModule, plan: _Plan, inputs: int) -> dict[str, Any]:
    """buffers : shapes and dtypes of the tensors between the inputs and the constants' address.

    results : where each step's last operand lies, its result: number of an argument or WORKSPACE,
    offset in bytes, shape, dtype; and the number of the binding whose value it is (see sources).
    """
    runs = {gvar.name_hint: iter((func.attrs or {}).get(PLACES, ())) for gvar, func in mod.functions_items()}
    made = [[*map(int, next(runs[step.kernel], ()))] for step in plan.steps]
    buffers = [[list(place.shape), place.dtype] for place in plan.arguments[inputs:]]
    last = [step.operands[-1] for step in plan.steps]
    return {
        "buffers": [*buffers, [[plan.size], "uint8"]],
        "steps": [step.kernel for step in plan.steps],
        "results": [
            (place.base, place.offset, place.shape, place.dtype, numbers[-1] if numbers else None)
            for place, numbers in zip(last, made, strict=True)
        ],
    }


def _caller(main: Function, plan: _Plan, run: Any) -> Function:
    """`main` with the one call in place of all the others."""
    size = relax.ShapeExpr([plan.size])
    workspace = relax.Var("workspace", relax.TensorType([plan.size], "uint8"))
    constants, binding_of_constants = address()
    made = [
        relax.VarBinding(workspace, relax.op.builtin.alloc_tensor(size, "uint8", 0)),
        binding_of_constants,
    ]
    ends = [relax.prim_value(0), relax.prim_value(len(plan.steps))]
    call = Call(run, [*plan.variables, workspace, constants, *ends])
    made.append(relax.VarBinding(relax.Var("_", relax.TupleType([])), call))
    body = relax.SeqExpr([relax.BindingBlock([*plan.kept, *made])], main.body.body)
    return relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)


def without_schedule(mod: IRModule) -> tuple[IRModule, npt.NDArray[np.uint8] | None, dict[str, Any] | None]:
    """`mod` for TVM's code generator, and what OneCall said of it: the constants, and the schedule."""
    if mod.attrs is None or BLOCK not in mod.attrs:
        return mod, None, None
    schedule = json.loads(str(mod.attrs[SCHEDULE])) if SCHEDULE in mod.attrs else None
    return mod.without_attr(BLOCK).without_attr(SCHEDULE), mod.attrs[BLOCK].numpy(), schedule
