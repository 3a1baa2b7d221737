"""The tensors that two stages have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_qat.ir import (
    Expr,
    Function,
    Tuple,
    TupleGetItem,
    Var,
    bindings_of,
    dtype_of,
    op_name,
    operands,
    same_shape,
    shape_of,
    source_of,
)
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams
from tvm_qat.verification.health import constant_variables

_QUANTIZES = ("qnn.quantize", "qnn.fake_quantize", "qnn.fake_quantize_range", "relax.quantize")


@dataclass(frozen=True)
class Point:
    """A tensor of the reference, and the one of the canonical module that it must equal.

    name : of the source node whose work it is; op : the operator that makes it in the reference.
    grid : of integers, None for others or where it is computed at run time. quantize : the canonical
    quantize that makes it, else None. simulated : the simulation's tensor; None where it has none of
    its own, so that the canonical one stands for it. moved : how far,
    in real units, the integers' own roundings before the last one may have moved it.
    """

    name: str
    op: str
    reference: Var
    canonical: Var
    simulated: Var | None
    grid: QParams | None
    quantize: Expr | None
    moved: float


@dataclass(frozen=True)
class Pair:
    """A node's result in the simulation and in the canonical module."""

    name: str
    op: str
    simulated: Var
    canonical: Var
    grid: QParams | None


def results_of(func: Function) -> list[Expr]:
    """The variables or constants that main returns, behind the names that were given to them."""
    bound = {binding.var: binding.value for binding in bindings_of(func)}

    def behind(expr: Expr) -> Expr:
        while True:
            if isinstance(expr, Var) and isinstance(bound.get(expr), Var | Tuple | TupleGetItem):
                expr = bound[expr]
            elif isinstance(expr, TupleGetItem) and isinstance(whole := behind(expr.tuple_value), Tuple):
                expr = whole.fields[expr.index]
            else:
                return expr

    whole = behind(func.body.body)
    return [behind(field) for field in whole.fields] if isinstance(whole, Tuple) else [whole]


# ---------------------------------------------------------------- what two stages have in common


def pairs_of(simulation: Function, canonical: Function) -> list[Pair]:
    """The last result under each node's name, in the order of the canonical module."""
    first, second = _last_named(simulation), _last_named(canonical)
    grids = grids_of(canonical)
    return [
        Pair(name, op_name(first[name].value), first[name].var, found.var, grids.get(found.var))
        for name, found in second.items()
        if name in first and _alike(first[name].var, found.var)
    ]


def _last_named(func: Function) -> dict[str, Any]:
    constant, found = constant_variables(func), dict[str, Any]()
    for binding in bindings_of(func):
        name = source_of(binding.value)
        if name is not None and binding.var not in constant:
            found.pop(name, None)
            found[name] = binding
    return found


def grids_of(func: Function) -> dict[Var, QParams]:
    """Of everything that is quantized, and of what is dequantized from it."""
    grids: dict[Var, QParams] = {}
    for binding in bindings_of(func):
        name = op_name(binding.value)
        if name in ("qnn.quantize", "qnn.dequantize"):
            grid = params_of(binding.value, "output" if name == "qnn.quantize" else "input")
            if grid is not None:
                grids[binding.var] = grid.check_axis(shape_of(binding.var) or ())
    return grids


def _alike(x: Var, y: Var) -> bool:
    return dtype_of(x) != "" and dtype_of(x) == dtype_of(y) and same_shape(shape_of(x), shape_of(y))


def points_of(
    reference: Function, canonical: Function, watched: Sequence[Var], results: Sequence[Expr],
    simulated: Mapping[Var, Var],
) -> list[Point]:  # fmt: skip
    """simulated : the simulation's variable for a canonical one."""
    bound = {binding.var: binding.value for binding in bindings_of(reference)}
    quantizes = {binding.var: binding.value for binding in bindings_of(canonical)}
    grids, points = grids_of(canonical), {}
    for var, result in zip(watched, results, strict=True):
        if result in bound and result not in points:
            made = quantizes[var]
            points[result] = _point(bound, result, var, simulated.get(var), grids.get(var), made)
    for var, other in _unquantized(reference, canonical).items():
        if var not in points and _alike(var, other):
            points[var] = _point(bound, var, other, simulated.get(other), None, None)
    return [points[var] for var in bound if var in points]


def _unquantized(reference: Function, canonical: Function) -> dict[Var, Var]:
    """Tensors of the reference that are no quantizer's, and the canonical ones that they stand for.

    The last result of a node stands for itself. What is turned back to float may have been scaled or
    moved as integers after the node whose name it bears: it stands for what its reader reads.
    """
    named, ours = _last_named(canonical), _last_named(reference)
    found = {
        binding.var: named[name].var
        for name, binding in ours.items()
        if name in named and op_name(named[name].value) != "qnn.dequantize" != op_name(binding.value)
    }
    back = {b.var for b in bindings_of(reference) if op_name(b.value) == "qnn.dequantize"}
    for name, binding in ours.items():
        reader = named.get(name)
        if reader is not None and op_name(binding.value) == op_name(reader.value):
            for mine, theirs in zip(operands(binding.value), operands(reader.value), strict=True):
                if mine in back and isinstance(theirs, Var):
                    found[mine] = theirs
    ends = zip(results_of(reference), results_of(canonical), strict=False)
    return found | {mine: theirs for mine, theirs in ends if mine in back and isinstance(theirs, Var)}


def _point(
    bound: Mapping[Var, Expr], var: Var, canonical: Var, simulated: Var | None, grid: QParams | None,
    quantize: Expr | None,
) -> Point:  # fmt: skip
    value = bound[var]
    name = source_of(value) or (source_of(quantize) if quantize is not None else None) or var.name
    return Point(name, op_name(value), var, canonical, simulated, grid, quantize, _moved(bound, value))


def _moved(bound: Mapping[Var, Expr], value: Expr) -> float:
    """Half a step of the sum that a bias was rounded to, and of what LiteRT's first rounding makes.

    That multiplies by m in [0.5, 1) and rounds, then divides by a power of two and rounds again.
    """
    while op_name(value).startswith("relax.") and value.args and isinstance(value.args[0], Var):
        if value.args[0] not in bound:
            return 0.0
        value = bound[value.args[0]]
    source = params_of(value, "input") if op_name(value) == "qnn.requantize" else None
    target = params_of(value, "output") if source is not None else None
    if source is None or target is None:
        return 0.0
    sums = float(source.scale.max()) if source.dtype == "int32" else 0.0
    if value.attrs["rounding"] != "tflite":
        return sums / 2
    _, exponents = np.frexp(source.scale / target.scale)
    between = np.where(exponents < 0, np.exp2(exponents) * target.scale, 0.0)
    return sums / 2 + float(between.max()) / 2


def simulated_of(simulation: Function, canonical: Function) -> dict[Var, Var]:
    """For each quantize and each last result of a node: what the simulation has in its place.

    Fake quantization keeps its node's name, and nodes keep their order; where a node has more of
    one than of the other, nothing is said of it.
    """
    first, second = _quantizing(simulation), _quantizing(canonical)
    found: dict[Var, Var] = {}
    for name, variables in second.items():
        others = first.get(name, [])
        if len(others) == len(variables):
            found |= dict(zip(variables, others, strict=True))
        elif len(variables) == 1 and name in (last := _last_named(simulation)):
            found[variables[0]] = last[name].var
    return found


def _quantizing(func: Function) -> dict[str, list[Var]]:
    found: dict[str, list[Var]] = {}
    constant = constant_variables(func)
    for binding in bindings_of(func):
        if op_name(binding.value) in _QUANTIZES and binding.var not in constant:
            found.setdefault(source_of(binding.value) or "", []).append(binding.var)
    return found
