"""The package kernel by kernel, beside the NumPy value of what each kernel stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_qat import kernels
from tvm_qat.ir import IRModule, Var, bindings_of, dtype_of, source_of, static_shape
from tvm_qat.package import KernelTime, Package
from tvm_qat.verification.difference import Difference
from tvm_qat.verification.evaluate import Evaluation
from tvm_qat.verification.feed import Feed
from tvm_qat.verification.result import Layer

Array = npt.NDArray[Any]
Step: TypeAlias = tuple[str, tuple[int, ...], str]
"""A kernel, and shape and dtype of its result."""


class Compiled:
    """Runs a package on one input after the other and gathers what differs from the reference.

    fused : the module that the package was compiled from. Rows are kernels by their node's name, then
    the outputs by theirs. Kernels that TVM makes of operators that are not ours bear no name: each is
    compared with what the module computes in its place, if one tensor there has its shape; `unnamed`
    counts the others, whose results are seen where the next kernel or an output reads them.
    """

    def __init__(self, fused: IRModule, package: Package) -> None:
        self._package = package
        self._module, self._calls = kernels.kernel_calls(fused)
        self._matched: list[Var | None] | None = None
        self._rows: dict[Any, tuple[str, str, Difference]] = {}
        self._ends = [(info, _difference(info.dtype)) for info in package.outputs]

    @property
    def unnamed(self) -> int:
        return sum(var is None for var in self._matched or ())

    def add(self, inputs: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
        """(the outputs of the package, those of the reference) for one input of the model."""
        results: Iterator[tuple[str, Array]] | list[tuple[str, Array]] = self._package.trace(inputs)
        if self._package.meta.schedule is None:
            results = list(results)
        if self._matched is None:
            self._matched = self._match(results)
        evaluation = Evaluation(self._module, inputs)
        feed = Feed(evaluation, Counter(var for var in self._matched if var is not None))
        for var, (_, result) in zip(self._matched, results, strict=True):
            if var is not None:
                self._rows[var][2].add(result, feed.get(var))
        feed.finish()
        found, expected = list(self._package.run(inputs).values()), evaluation.outputs()
        for (_, difference), ours, theirs in zip(self._ends, found, expected, strict=True):
            difference.add(ours, np.asarray(theirs))
        return found, expected

    def _match(self, results: Any) -> list[Var | None]:
        """For each step the variable whose value it makes; a row for each of them."""
        schedule, places = self._package.meta.schedule, self._package.results
        own, order = self._package.meta.kernels, [b.var for b in bindings_of(self._module["main"])]
        steps: list[Step]
        if schedule is None:
            steps = [(kernel, array.shape, str(array.dtype)) for kernel, array in results]
            named = _in_order(steps, own, self._calls)
        else:
            steps = [(k, tuple(p[2]), p[3]) for k, p in zip(schedule.steps, places, strict=True)]
            named = [
                order[p[4]] if step[0] in own and p[4] is not None else None
                for step, p in zip(steps, places, strict=True)
            ]
        matched = _between(steps, named, order)
        names = dict(self._calls)
        for binding in bindings_of(self._module["main"]):
            if binding.var in matched:
                name = names.get(binding.var) or source_of(binding.value) or binding.var.name
                op = "kernel" if binding.var in names else "kernel of TVM"
                self._rows[binding.var] = (name, op, _difference(dtype_of(binding.var)))
        return matched

    def layers(self, times: Sequence[KernelTime] = ()) -> Iterator[Layer]:
        """Rows of op "kernel", "kernel of TVM" or "output". times : of `Package.profile`, or none."""
        seconds = self._seconds(times)
        for var, (name, op, difference) in self._rows.items():
            yield Layer(name, op, difference.figures(), seconds=seconds.get(var))
        for info, difference in self._ends:
            yield Layer(info.name, "output", difference.figures())

    def _seconds(self, times: Sequence[KernelTime]) -> dict[Var, float]:
        """Of the steps, which profile and trace tell in one order; of TVM's machine only what both tell."""
        if self._package.meta.schedule is None:
            times = [each for each in times if each.kernel in self._package.meta.kernels]
        steps = zip(self._matched or (), times, strict=True) if times else ()
        return {var: each.seconds for var, each in steps if var is not None}


def _difference(dtype: str) -> Difference:
    return Difference(None, integers=not dtype.startswith(("float", "bfloat")))


def _in_order(
    steps: Sequence[Step], sources: Mapping[str, Sequence[str]], calls: Sequence[tuple[Var, str]]
) -> list[Var | None]:
    """The variables of the steps that bear a node's name: kernels stay in order.

    TVM folds what depends on constants alone, so that some calls have no step.
    """
    nth: Counter[str] = Counter()
    found: list[Var | None] = []
    place = 0
    for step in steps:
        kernel = step[0]
        names = sources.get(kernel, ())
        name = names[nth[kernel]] if nth[kernel] < len(names) else None
        nth[kernel] += 1
        fits = (i for i in range(place, len(calls)) if calls[i][1] == name and _fits(calls[i][0], step))
        at = next(fits, None)
        found.append(None if at is None else calls[at][0])
        place = place if at is None else at + 1
    return found


def _between(steps: Sequence[Step], named: Sequence[Var | None], order: Sequence[Var]) -> list[Var | None]:
    """`named`, with steps without a name matched to the variables between their named neighbours.

    Where as many variables as steps there have one shape and dtype, they are those steps' in order.
    """
    places = {var: place for place, var in enumerate(order)}
    found = list(named)
    begin = 0
    for is_nameless, group in groupby(range(len(steps)), lambda i: named[i] is None):
        run = list(group)
        following = named[run[-1] + 1] if run[-1] + 1 < len(steps) else None
        if not is_nameless:
            begin = 1 + max(places[var] for i in run if (var := named[i]) is not None)
            continue
        window = order[begin : len(order) if following is None else places[following]]
        for kind in {steps[i][1:] for i in run}:
            alike = [i for i in run if steps[i][1:] == kind]
            fitting = [var for var in window if _fits(var, steps[alike[0]])]
            if len(fitting) == len(alike):
                found = [dict(zip(alike, fitting, strict=True)).get(i, var) for i, var in enumerate(found)]
    return found


def _fits(var: Var, step: Step) -> bool:
    return static_shape(var) == step[1] and dtype_of(var) == step[2]
