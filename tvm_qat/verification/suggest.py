"""Which layers to keep in float so that the outputs come within a given distance of the simulation.

Nothing is estimated: every set of layers that is considered is kept in float, folded, and run by the
NumPy reference on all inputs. Only the order of the trials comes from what `verify` found: layers by
the power of their own difference, the worst first.

    1. the shortest row of worst layers that is enough, by halving; all layers that differ are its bound
    2. layers, then nodes, are taken out again as long as what is left is enough
    3. of two layers, every layer that could do alone is tried

So no member of the result can be left out. That there is no smaller set is only said where all
smaller ones were measured: of none, one and two layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm_qat.ir import Expr, IRModule, Var, bindings_of, op_name, operands, source_of
from tvm_qat.passes.keep_float import operators_of
from tvm_qat.verification.modules import Modules
from tvm_qat.verification.result import Layer, Suggestion
from tvm_qat.verification.trials import Names, Trials


@dataclass(frozen=True)
class Candidate:
    """A layer that differs by itself. nodes : all that compute it, in order, which can be kept."""

    name: str
    nodes: Names


def suggest(
    modules: Modules, source: IRModule, layers: Sequence[Layer], within: float, trials: Trials
) -> Suggestion:
    """The fewest layers, and of those the fewest nodes, to keep in float.

    source : as imported, with known shapes. layers : of the reference beside the simulation, as in
    `modules.points`. within : most steps that an element of an output may be from the simulation.
    """
    before = trials.steps(())
    ranked = _candidates(modules, source, layers) if before > within else []
    best = trials.steps(_nodes(ranked), 2 + 2 * len(ranked).bit_length())
    found = _Found([], (), before <= within)
    if best < before:
        # where nothing is enough, the fewest that come as near as all of them
        found = _search(ranked, max(within, best), trials)
    after = trials.steps(found.nodes)
    return Suggestion(
        within, before, after, tuple(layer.name for layer in found.layers), trials.kept(found.nodes),
        after <= within, found.fewest, trials.made,
    )  # fmt: skip


@dataclass(frozen=True)
class _Found:
    """fewest : all smaller sets of layers were measured."""

    layers: Sequence[Candidate]
    nodes: Names
    fewest: bool


def _search(ranked: Sequence[Candidate], goal: float, trials: Trials) -> _Found:
    """All of `ranked` come within `goal`, none of them does not."""

    def enough(kept: Sequence[Candidate], left: int) -> bool:
        return trials.steps(_nodes(kept), left) <= goal

    chosen = _reduced(_shortest(ranked, enough), enough)
    if len(chosen) == 2:
        others = [layer for layer in ranked if layer not in chosen]
        alone = (layer for i, layer in enumerate(others) if enough([layer], len(others) - i))
        chosen = next(([layer] for layer in alone), chosen)
    # products come first in a layer: they are the first that may go back to integers
    nodes = list(reversed(_nodes(chosen)))
    nodes = _reduced(nodes, lambda kept, left: trials.steps(tuple(kept), left) <= goal)
    return _Found(chosen, tuple(nodes), len(chosen) <= 2)


def _shortest(
    ranked: Sequence[Candidate], enough: Callable[[Sequence[Candidate], int], bool]
) -> list[Candidate]:
    """The first few of `ranked`, all of which are enough."""
    low, high = 0, len(ranked)
    while high - low > 1:
        middle = (low + high) // 2
        if enough(ranked[:middle], math.ceil(math.log2(high - low)) + middle):
            high = middle
        else:
            low = middle
    return list(ranked[:high])


def _reduced(members: list[Any], enough: Callable[[Sequence[Any], int], bool]) -> list[Any]:
    """`members` without those that can be left out, the last first, until none can."""
    kept, done = list(members), False
    while not done:
        done = True
        for i, member in reversed(list(enumerate(list(kept)))):
            others = [other for other in kept if other is not member]
            if others and enough(others, i + 1):
                kept, done = others, False
    return kept


def _nodes(layers: Iterable[Candidate]) -> Names:
    return tuple(dict.fromkeys(node for layer in layers for node in layer.nodes))


# ---------------------------------------------------------------- what can be kept


def _candidates(modules: Modules, source: IRModule, layers: Sequence[Layer]) -> list[Candidate]:
    """Layers that differ by themselves, those with the strongest difference first."""
    order = list(operators_of(source))
    canonical = modules.canonical["main"]
    bound = {binding.var: binding.value for binding in bindings_of(canonical)}
    ends = frozenset(point.canonical for point in modules.points)
    found: list[tuple[float, Candidate]] = []
    for point, layer in zip(modules.points, layers, strict=True):
        if layer.figures.differing:
            names = _made_by(point.canonical, bound, ends)
            nodes = tuple(node for node in order if node in names)
            if nodes:
                found.append((layer.figures.noise, Candidate(layer.name, nodes)))
    return [candidate for _, candidate in sorted(found, key=lambda each: -each[0])]


def _made_by(var: Var, bound: Mapping[Var, Expr], ends: frozenset[Var]) -> set[str]:
    """Names of the nodes between a tensor and those that are compared before it."""
    names: set[str] = set()
    seen, todo = {var, *ends}, [var]
    while todo:
        value = bound[todo.pop()]
        names.add(source_of(value) or "")
        for operand in operands(value):
            if isinstance(operand, Var) and operand in bound and operand not in seen:
                seen.add(operand)
                if op_name(bound[operand]) != "qnn.dequantize":
                    todo.append(operand)
    return names
