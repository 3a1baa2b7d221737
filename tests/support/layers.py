"""A network compared with its source framework layer by layer, in steps of each layer's own grid.

A layer is a tensor that training gave a grid: the result of a fake quantization, of a quantize (with
the clip that narrows its range, where there is one), of an operator of the dialect. The imported module
is rebuilt with all layers as outputs, compiled, and set beside what the framework computed.
A difference has one of three causes:

tie         the framework's own inputs of that layer, put through our integers, give another step than
            the framework took, and the real value lies within EDGE of where rounding changes
unexplained the same, but the real value lies elsewhere: a fault, or arithmetic that differs
inherited   the framework's own inputs give the framework's step: an earlier layer differed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import tvm_qat
from tvm_qat import pipeline
from tvm_qat.ir import (
    BlockBuilder,
    Expr,
    Function,
    IRModule,
    MatchCast,
    Tuple,
    Var,
    array_of,
    bindings_of,
    dtype_of,
    flat,
    is_const,
    op_name,
    operands,
    rebuild,
    shape_of,
    source_of,
    substitute,
)  # fmt: skip
from tvm_qat.qnn import arithmetic, build
from tvm_qat.qnn.params import params_of
from tvm_qat.qnn.table import OPS
from tvm_qat.qparams import QParams, nudged_range
from tvm_qat.verification.evaluate import evaluate_module

EDGE = 1e-3
"""Steps between a real value and the place where rounding changes, for a difference to be a tie."""

ULPS = 8
"""What the order of a float32 sum may move its result by: on grids of 16 bits that is more than EDGE."""

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """name : the node that it comes from. rounded : the call that rounds, `var` its result or that of
    the clip after it. formula : of its rounding, None of an integer operator."""

    name: str
    var: Var
    rounded: Var
    grid: QParams
    formula: str | None


@dataclass(frozen=True)
class Difference:
    """most, alone : steps between compiled code and the framework; from the framework's own inputs. off,
    ties, unexplained : shares of elements that differ at all; that differ alone, at a tie or elsewhere."""

    name: str
    most: int
    alone: int
    off: float
    ties: float
    unexplained: float


def layers_of(mod: IRModule) -> list[Layer]:
    """The layers of an imported module that depend on its inputs, in order."""
    func, found = mod["main"], []
    known = set(func.params)
    for binding in bindings_of(func):
        if not any(var in known for var in _variables(binding.value)):
            continue
        known.add(binding.var)
        described = _grid(binding.value)
        if described is not None:
            name = source_of(binding.value) or binding.var.name
            found.append(Layer(name, binding.var, binding.var, *described))
        elif found and op_name(binding.value) == "relax.clip" and _clips(found[-1], binding.value):
            found[-1] = replace(found[-1], var=binding.var)
    return found


def _clips(layer: Layer, clip: Expr) -> bool:
    return bool(clip.args[0].same_as(layer.var)) and not dtype_of(layer.var).startswith("float")


def _variables(expr: Expr) -> list[Var]:
    if isinstance(expr, Var):
        return [expr]
    return [var for part in operands(expr) for var in _variables(part)]


def _grid(expr: Expr) -> tuple[QParams, str | None] | None:
    name = op_name(expr)
    if name == "qnn.fake_quantize_range":
        attrs = expr.attrs
        low, high = (array_of(bound) for bound in expr.args[1:3])
        grid = nudged_range(
            low, high, bits=attrs["bits"], signed=bool(attrs["signed"]),
            narrow_range=bool(attrs["narrow_range"]), axis=attrs.get("output_axis"),
        )  # fmt: skip
        return grid, "nudged_range"
    if name not in OPS or "output_scale" not in OPS[name].args:
        return None
    grid = params_of(expr, "output")
    formula = str(expr.attrs["rounding"]) if name in ("qnn.quantize", "qnn.fake_quantize") else None
    return None if grid is None else (grid, formula)


def compare(
    mod: IRModule,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array] | Sequence[Array],
    **options: Any,
) -> list[Difference]:
    """Every layer of an imported module, compiled, beside what the source framework computed.

    expected : by the name of the layer, or in order: real values on its grid, or integers where the
    layer is a tensor of integers. options : of `tvm_qat.compile`.
    """
    layers = layers_of(mod)
    values = _in_order(layers, expected)
    package = tvm_qat.compile(_with_outputs(mod, layers), options.pop("target", "llvm"), **options)
    compiled = list(package.run(dict(inputs)).values())
    alone = _isolated(mod, layers)
    fed = [*(inputs[str(name)] for name in mod["main"].attrs["input_names"]), *values]
    single = evaluate_module(pipeline.run(alone, **options), fed)
    reals = evaluate_module(_isolated(mod, layers, before=True), fed)
    rows = zip(layers, values, compiled, single, reals, strict=True)
    return [_difference(*row) for row in rows]


def check_layers(
    mod: IRModule, inputs: Mapping[str, Array], expected: Mapping[str, Array] | Sequence[Array], *,
    most: int = 1, unexplained: float = 0, **options: Any,
) -> list[Difference]:  # fmt: skip
    """`compare`, asserting that no layer is off by more than a step alone, or `most` in the whole, and
    that ties explain it all.

    unexplained : share of a layer's elements that may differ without a tie.
    """
    found = compare(mod, inputs, expected, **options)
    assert found, "the module has no layers"
    far = [row for row in found if row.alone > 1 or row.most > most or row.unexplained > unexplained]
    assert not far, far
    return found


def _in_order(layers: list[Layer], expected: Mapping[str, Array] | Sequence[Array]) -> list[Array]:
    names = [layer.name for layer in layers]
    if isinstance(expected, Mapping):
        assert set(names) == set(expected), set(names) ^ set(expected)
        expected = [expected[name] for name in names]
    assert len(expected) == len(layers), (names, len(expected))
    values = []
    for layer, value in zip(layers, expected, strict=True):
        value = _stored(layer, np.asarray(value))
        fixed = [size for size in shape_of(layer.var) or () if isinstance(size, int)]
        assert len(fixed) < value.ndim or fixed == list(value.shape), (layer.name, fixed, value.shape)
        values.append(value)
    return values


def _stored(layer: Layer, value: Array) -> Array:
    """A value as the layer's tensor holds it: in integers, or real."""
    dtype = dtype_of(layer.var)
    if dtype.startswith("float") or np.issubdtype(value.dtype, np.integer):
        return value.astype(dtype)
    grid, ndim = layer.grid, value.ndim
    scale, zero_point = (arithmetic.spread(part, grid.axis, ndim) for part in (grid.scale, grid.zero_point))
    return np.asarray(np.rint(value / scale) + zero_point).astype(dtype)


def _with_outputs(mod: IRModule, layers: list[Layer]) -> IRModule:
    """The module with every layer as an output, and no other."""

    def body(func: Function, builder: BlockBuilder) -> Expr:
        made: dict[Var, Expr] = {}
        for binding in bindings_of(func):
            made[binding.var] = _again(builder, binding, made)
        return builder.emit_output(Tuple([made[layer.var] for layer in layers]))

    names = [f"layer{i}" for i in range(len(layers))]
    return _named(rebuild(mod, body), {"output_names": names})


def _again(builder: BlockBuilder, binding: Any, made: Mapping[Var, Expr]) -> Expr:
    value = substitute(binding.value, dict(made))
    if isinstance(binding, MatchCast):
        return builder.match_cast(value, binding.ty)
    return builder.emit(flat(builder, value))


def _isolated(mod: IRModule, layers: list[Layer], before: bool = False) -> IRModule:
    """A module that takes the value of every layer after its inputs, and computes each layer from the
    given values of those before it. before : the real values that each layer rounds."""
    func = mod["main"]
    given = {layer.var: Var(f"layer{i}", layer.var.ty) for i, layer in enumerate(layers)}
    grids = {layer.var: layer for layer in layers}
    builder, results, made, rounded = BlockBuilder(), [], {}, {layer.rounded for layer in layers}
    reals: dict[Var, Expr] = {}
    with builder.function("main", [*func.params, *given.values()]):
        with builder.dataflow():
            for binding in bindings_of(func):
                value = _again(builder, binding, made)
                if binding.var in rounded:
                    reals[binding.var] = _rounded_from(binding, made, value)
                made[binding.var] = value
                if binding.var in given:
                    results.append(reals[grids[binding.var].rounded] if before else value)
                    made[binding.var] = _on_grid(builder, grids[binding.var], given[binding.var])
            out = builder.emit_output(Tuple(results))
        builder.emit_func_output(out)
    names = [*map(str, func.attrs["input_names"]), *(f"layer{i}" for i in range(len(layers)))]
    return _named(builder.get(), {"input_names": names, "output_names": names[-len(layers) :]})


def _rounded_from(binding: Any, made: Mapping[Var, Expr], value: Expr) -> Expr:
    operand = substitute(binding.value.args[0], dict(made))
    return value if isinstance(operand, Tuple) or is_const(operand) else operand


def _on_grid(builder: BlockBuilder, layer: Layer, value: Var) -> Expr:
    """What the walk over the module needs to see that a float tensor lies on a grid."""
    if not dtype_of(value).startswith("float"):
        return value
    return builder.emit(build.fake_quantize(value, layer.grid))


def _named(mod: IRModule, attrs: Mapping[str, Any]) -> IRModule:
    mod["main"] = mod["main"].with_attrs(dict(attrs))
    return mod


def _difference(layer: Layer, want: Array, compiled: Array, single: Array, real: Array) -> Difference:
    together, alone = (_steps(layer, found, want) for found in (compiled, single))
    tie = (alone != 0) & _at_an_edge(layer, real)
    shares = [float(np.mean(where)) for where in (together != 0, tie, (alone != 0) & ~tie)]
    most, most_alone = (int(np.abs(steps).max(initial=0)) for steps in (together, alone))
    return Difference(layer.name, most, most_alone, *shares)


def _steps(layer: Layer, found: Array, want: Array) -> Array:
    difference = np.asarray(found, np.float64) - np.asarray(want, np.float64)
    if np.issubdtype(want.dtype, np.integer):
        return difference
    return np.rint(difference / arithmetic.spread(layer.grid.scale, layer.grid.axis, want.ndim))


def _at_an_edge(layer: Layer, real: Array) -> Array:
    """Where a value EDGE steps and ULPS units in its last place higher or lower is rounded otherwise."""
    if layer.formula is None:
        return np.zeros(real.shape, bool)
    edge = EDGE * arithmetic.spread(layer.grid.scale, layer.grid.axis, real.ndim) + ULPS * np.spacing(
        np.abs(real)
    )
    low, high = (
        arithmetic.quantize(
            (real.astype(np.float64) + side * edge).astype(np.float32), layer.grid, layer.formula
        )
        for side in (-1, 1)
    )
    return np.asarray(low != high)
