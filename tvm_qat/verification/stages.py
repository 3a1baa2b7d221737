"""All stages of one model on one input after the other, side by side.

Stages run in step, binding by binding, so that no more than what the next comparison reads is held.
The reference runs twice: on its own results, and with every tensor that the simulation has too
replaced by the simulation's, so that the error of a layer is told from what it inherited.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat.ir import Expr, Var, dtype_of, op_name, source_of
from tvm_qat.package import KernelTime
from tvm_qat.qnn import arithmetic
from tvm_qat.qnn.params import params_of
from tvm_qat.qparams import QParams
from tvm_qat.verification.compiled import Compiled
from tvm_qat.verification.difference import Difference, ties_of
from tvm_qat.verification.evaluate import Evaluation
from tvm_qat.verification.feed import Feed
from tvm_qat.verification.health import Gauge, Quantizer, constant_variables, weight_gauge
from tvm_qat.verification.modules import Modules
from tvm_qat.verification.other import Other
from tvm_qat.verification.points import Pair, Point
from tvm_qat.verification.result import Layer, Stage

Array = npt.NDArray[Any]
Tick = Callable[[float], None]
"""Called with the share of the work on one input that is done."""


@dataclass(frozen=True)
class Outputs:
    """The model's outputs for one input, in order, of three stages."""

    simulation: list[Array]
    reference: list[Array]
    compiled: list[Array]


class Stages:
    def __init__(self, modules: Modules, compiled: Compiled, other: Other | None = None) -> None:
        self._modules, self._compiled, self._other = modules, compiled, other
        self._pairs = [(pair, Difference(pair.grid, _is_integer(pair.canonical))) for pair in modules.pairs]
        self._own = {point: _of_point(point) for point in modules.points}
        self._inherited = {point: _of_point(point) for point in modules.points}
        self._fused: list[Difference] = []
        self._gauges: dict[Var, Gauge] = {}
        self._weights: dict[Var, Quantizer] = {}
        self._constant = constant_variables(modules.canonical["main"])

    def add(self, inputs: Mapping[str, Array], tick: Tick = lambda share: None) -> Outputs:
        """Run every stage on one input of the model."""
        modules = self._modules
        simulation = Evaluation(modules.simulation, inputs)
        canonical = Evaluation(modules.canonical, inputs)
        same = modules.simulation is modules.canonical
        first = None if same else Feed(simulation, self._wanted_of_simulation())
        second = Feed(canonical, Counter(p.canonical for p in modules.points), self._observer(first))
        if self._other is not None:
            self._other.run(inputs)
        reference = self._compare_points(inputs, first, second, tick)
        second.finish()
        if first is not None:
            first.finish()
        tick(0.8)
        found, fused = self._compiled.add(inputs)
        self._compare_outputs(fused, reference)
        if self._other is not None:
            self._other.add_outputs(reference)
        tick(1.0)
        return Outputs((canonical if first is None else simulation).outputs(), reference, found)

    def _wanted_of_simulation(self) -> Counter[Var]:
        wanted = Counter(pair.simulated for pair in self._modules.pairs)
        return wanted + Counter(p.simulated for p in self._modules.points if p.simulated is not None)

    def _observer(self, simulation: Feed | None) -> Any:
        """What is done when the canonical module has made a tensor. simulation : None if it is the same."""
        pairs = {pair.canonical: (pair, difference) for pair, difference in self._pairs}

        def observe(evaluation: Evaluation, var: Var, expr: Expr, value: Any) -> Any:
            if var in pairs:
                pair, difference = pairs[var]
                difference.add(value, value if simulation is None else simulation.get(pair.simulated))
            real = evaluation.value_of(expr.args[0]) if op_name(expr) == "qnn.quantize" else None
            self._gauge(var, expr, value, real)
            return value, real

        return observe

    def _gauge(self, var: Var, expr: Expr, value: Any, real: Any) -> None:
        if op_name(expr) not in ("qnn.quantize", "qnn.dequantize") or var in self._weights:
            return
        if var in self._constant or op_name(expr) == "qnn.dequantize":
            weight = weight_gauge(expr, value, real)
            if weight is not None:
                self._weights[var] = weight.quantizer()
            return
        grid = _output_grid(expr, value)
        if grid is not None:
            self._gauges.setdefault(var, Gauge(source_of(expr) or var.name, "activation", grid)).add(
                value, real
            )

    def _compare_points(
        self, inputs: Mapping[str, Array], simulation: Feed | None, canonical: Feed, tick: Tick
    ) -> list[Array]:
        """The outputs of the reference."""
        points = {point.reference: point for point in self._modules.points}
        inherited, own = (Evaluation(self._modules.reference, inputs) for _ in range(2))
        total = max(len(points), 1)
        for (var, _, value), (_, _, alone) in zip(inherited, own, strict=True):
            point = points.get(var)
            if point is None:
                continue
            wanted, real = canonical.get(point.canonical)
            if simulation is not None and point.simulated is not None:
                wanted = _on_grid(simulation.get(point.simulated), wanted, point.grid)
            self._inherited[point].add(value, wanted)
            self._own[point].add(alone, wanted, _ties(point, alone, real))
            if self._other is not None:
                self._other.add(point, value)
            own.replace(var, wanted)
            total -= 1
            tick(0.8 * (1 - total / len(points)))
        return inherited.outputs()[: self._modules.outputs]

    def _compare_outputs(self, fused: list[Array], reference: list[Array]) -> None:
        if not self._fused:
            self._fused = [Difference(None, array.dtype.kind != "f") for array in reference]
        for difference, ours, theirs in zip(self._fused, fused, reference, strict=True):
            difference.add(ours, theirs)

    def stages(self, times: Sequence[KernelTime] = ()) -> tuple[Stage, ...]:
        """times : of the package's kernels, or none."""
        own = self._own
        return (
            Stage("canonical", "simulation", tuple(_of_pair(*found) for found in self._pairs)),
            Stage(
                "reference", "simulation",
                tuple(
                    Layer(point.name, point.op, own[point].figures(), self._inherited[point].figures(),
                          source_of(point.quantize) if point.quantize is not None else None)
                    for point in self._modules.points
                ),
            ),
            Stage(
                "compiled", "reference", tuple(self._compiled.layers(times)), self._compiled.unnamed
            ),
            *([self._other.stage()] if self._other is not None else []),
        )  # fmt: skip

    @property
    def fused_differing(self) -> int:
        """Elements of the outputs in which the fused module differs from the one that is not."""
        return sum(difference.figures().differing for difference in self._fused)

    def quantizers(self) -> tuple[Quantizer, ...]:
        activations = [gauge.quantizer() for gauge in self._gauges.values()]
        return (*activations, *self._weights.values())


def _is_integer(var: Var) -> bool:
    return not dtype_of(var).startswith(("float", "bfloat"))


def _of_point(point: Point) -> Difference:
    return Difference(point.grid, _is_integer(point.reference))


def _of_pair(pair: Pair, difference: Difference) -> Layer:
    return Layer(pair.name, pair.op, difference.figures())


def _output_grid(quantize: Expr, value: Array) -> QParams | None:
    grid = params_of(quantize, "output")
    return None if grid is None else grid.check_axis(value.shape)


def _on_grid(simulated: Array, canonical: Array, grid: QParams | None) -> Array:
    """The simulation's tensor as what the reference holds: fake quantization left it in float."""
    if simulated.dtype == canonical.dtype:
        return simulated
    if grid is None:
        return canonical
    scale = arithmetic.spread(grid.scale.astype(np.float64), grid.axis, simulated.ndim)
    zero_point = arithmetic.spread(grid.zero_point, grid.axis, simulated.ndim)
    return np.asarray(np.rint(simulated.astype(np.float64) / scale) + zero_point).astype(grid.dtype)


def _ties(point: Point, found: Array, real: Array | None) -> Array | None:
    if point.grid is None or point.quantize is None or real is None:
        return None
    return ties_of(found, real, point.grid, str(point.quantize.attrs["rounding"]), point.moved)
