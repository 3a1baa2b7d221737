"""The calls of a module in order, those inside composite functions in place of the calls of these."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm_qat.ir import (
    Call,
    Expr,
    Function,
    IRModule,
    TensorType,
    Tuple,
    TupleGetItem,
    TupleType,
    Var,
    bindings_of,
    is_const,
    op_name,
    operands,
    shape_of,
    shape_of_type,
    tvm,
)
from tvm_qat.qnn.table import OPS

_PARAMETERS = ("_scale", "_zero_point", "_scales", "_zero_points")


@dataclass(frozen=True, eq=False)
class FlatCall:
    """call : as it stands in its function. results : what it is bound to, and for a tuple its parts.

    data : its operands that are tensors of the model, in order: variables of the flat sequence, and
    constants. place : number of the binding of main that holds it: one kernel's work.
    """

    call: Expr
    results: list[Var]
    data: tuple[Expr, ...]
    place: int

    @property
    def op(self) -> str:
        """The operator, or what is called instead of one."""
        name = getattr(self.call.op, "name_hint", None) or getattr(self.call.op, "global_symbol", None)
        return op_name(self.call) or str(name or self.call.op)

    @property
    def var(self) -> Var:
        return self.results[0]

    @property
    def variables(self) -> list[Var]:
        return [operand for operand in self.data if isinstance(operand, Var)]


@dataclass(frozen=True)
class Flat:
    """inputs : the model's names of its parameters. outputs : what the model returns.

    dims : main's names of the dimensions that composite functions call otherwise.
    """

    calls: tuple[FlatCall, ...]
    inputs: dict[Var, str]
    outputs: tuple[Var, ...]
    dims: dict[Any, str]

    def shape(self, ty: Any) -> tuple[int | str, ...]:
        """Of a tensor's type; unknown dimensions by name, none if not even the rank is known."""
        sizes = shape_of_type(ty) or ()
        return tuple(size if isinstance(size, int) else self.dims.get(size, str(size)) for size in sizes)


@dataclass
class _Names:
    """alias : variables that are another name of one, or of several (a tuple). makers : calls by result.
    dims : see Flat.
    """

    alias: dict[Var, tuple[Expr, ...]] = field(default_factory=dict)
    makers: dict[Var, FlatCall] = field(default_factory=dict)
    dims: dict[Any, str] = field(default_factory=dict)

    def of(self, expr: Expr) -> tuple[Expr, ...]:
        """The variables and constants that an operand stands for."""
        if isinstance(expr, Var):
            return self.alias.get(expr, (expr,))
        if isinstance(expr, Tuple):
            return tuple(part for each in expr.fields for part in self.of(each))
        if isinstance(expr, TupleGetItem):
            parts = self.of(expr.tuple_value)
            return (parts[expr.index],) if len(parts) > 1 else parts
        return (expr,) if is_const(expr) else ()

    def bind(self, binding: Any) -> None:
        """A binding that is no call: another name, or a part of a call's result."""
        whole = self.of(binding.value)
        if isinstance(binding.value, TupleGetItem) and len(whole) == 1 and whole[0] in self.makers:
            maker = self.makers[whole[0]]
            maker.results.append(binding.var)
            self.makers[binding.var] = maker
        else:
            self.alias[binding.var] = whole


def flatten(mod: IRModule) -> Flat:
    """Calls that have tensors as their result, of `main` and of what it calls."""
    main, names = mod["main"], _Names()
    calls: list[FlatCall] = []
    for number, binding in enumerate(bindings_of(main)):
        calls += _of_binding(mod, binding, names, number)
    given = main.attrs["input_names"] if main.attrs is not None and "input_names" in main.attrs else ()
    shown = [str(name) for name in given] or [param.name for param in main.params]
    outputs = tuple(part for part in names.of(main.body.body) if isinstance(part, Var))
    return Flat(tuple(calls), dict(zip(main.params, shown, strict=True)), outputs, names.dims)


def _of_binding(mod: IRModule, binding: Any, names: _Names, number: int) -> Iterator[FlatCall]:
    value, inner = binding.value, _callee(mod, binding.value)
    if inner is not None:
        for param, arg in zip(inner.params, value.args, strict=True):
            names.alias[param] = names.of(arg)
            for own, size in zip(shape_of(param) or (), shape_of(arg) or (), strict=False):
                if not isinstance(own, int):
                    names.dims.setdefault(own, str(size))
        for each in bindings_of(inner):
            if isinstance(each.value, Call):
                yield _flat(each, names, number)
            else:
                names.bind(each)
        names.alias[binding.var] = names.of(inner.body.body)
    elif not isinstance(value, Call):
        names.bind(binding)
    elif _is_tensor(value.ty):
        yield _flat(binding, names, number)


def _flat(binding: Any, names: _Names, place: int) -> FlatCall:
    data = tuple(part for operand in _data(binding.value) for part in names.of(operand))
    names.makers[binding.var] = FlatCall(binding.value, [binding.var], data, place)
    return names.makers[binding.var]


def _callee(mod: IRModule, value: Expr) -> Function | None:
    if not (isinstance(value, Call) and isinstance(value.op, tvm.ir.GlobalVar)):
        return None
    func = mod[value.op]
    return func if isinstance(func, Function) else None


def _is_tensor(ty: Any) -> bool:
    fields: Sequence[Any] = ty.fields if isinstance(ty, TupleType) else [ty]
    return len(fields) > 0 and all(isinstance(each, TensorType) for each in fields)


def _data(call: Expr) -> Sequence[Expr]:
    """The operands that are data, not parameters of a grid."""
    if op_name(call) not in OPS:
        return operands(call)
    roles = OPS[op_name(call)].args
    return [arg for arg, role in zip(call.args, roles, strict=True) if not role.endswith(_PARAMETERS)]
