"""The package kernel by kernel, beside the NumPy value of what each kernel stands for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tvm_qat import kernels
from tvm_qat.ir import IRModule, Var, dtype_of, static_shape
from tvm_qat.package import Package
from tvm_qat.verification.difference import Difference
from tvm_qat.verification.evaluate import Evaluation
from tvm_qat.verification.feed import Feed

Array = npt.NDArray[Any]


class Compiled:
    """Runs a package on one input after the other and gathers what differs from the reference.

    fused : the module that the package was compiled from. Rows are kernels by their node's name, then
    the outputs by theirs. Kernels that TVM makes of float operators bear no name: what they compute is
    seen where the next kernel or an output reads it. `unnamed` counts them.
    """

    def __init__(self, fused: IRModule, package: Package) -> None:
        self._package = package
        self._module, calls = kernels.kernel_calls(fused)
        self._matched = _matched(package, calls)
        self.unnamed = sum(var is None for var in self._matched)
        self._steps = {var: name for var, name in calls if var in self._matched}
        self._rows: dict[Any, tuple[str, Difference]] = {
            var: (name, _difference(dtype_of(var))) for var, name in self._steps.items()
        }
        self._rows |= {info.name: (info.name, _difference(info.dtype)) for info in package.outputs}

    def add(self, inputs: Mapping[str, Array]) -> tuple[list[Array], list[Array]]:
        """(the outputs of the package, those of the reference) for one input of the model."""
        evaluation = Evaluation(self._module, inputs)
        feed = Feed(evaluation, Counter(var for var in self._matched if var is not None))
        for var, (_, result) in zip(self._matched, self._results(inputs), strict=True):
            if var is not None:
                self._rows[var][1].add(result, feed.get(var))
        feed.finish()
        found, expected = list(self._package.run(inputs).values()), evaluation.outputs()
        for info, ours, theirs in zip(self._package.outputs, found, expected, strict=True):
            self._rows[info.name][1].add(ours, np.asarray(theirs))
        return found, expected

    def _results(self, inputs: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        return self._package.trace(inputs) if self._matched else iter(())

    def rows(self) -> Iterator[tuple[str, str, Difference]]:
        """(node, kernel's operator or "output", what differs)."""
        for key, (name, difference) in self._rows.items():
            yield name, "kernel" if isinstance(key, Var) else "output", difference


def _difference(dtype: str) -> Difference:
    return Difference(None, integers=not dtype.startswith(("float", "bfloat")))


def _matched(package: Package, calls: list[tuple[Var, str]]) -> list[Var | None]:
    """For each step of the package the variable whose value it makes: kernels stay in order.

    TVM folds what depends on constants alone, so that some calls have no step.
    """
    schedule = package.meta.schedule
    if schedule is None:
        return []
    nth: Counter[str] = Counter()
    found: list[Var | None] = []
    place = 0
    for kernel, result in zip(schedule.steps, package.results, strict=True):
        names = package.meta.kernels.get(kernel, ())
        name = names[nth[kernel]] if nth[kernel] < len(names) else None
        nth[kernel] += 1
        at = place
        while at < len(calls) and not (calls[at][1] == name and _fits(calls[at][0], result)):
            at += 1
        found.append(calls[at][0] if at < len(calls) else None)
        place = at + 1 if at < len(calls) else place
    return found


def _fits(var: Var, result: Any) -> bool:
    _, _, shape, dtype = result
    return static_shape(var) == tuple(shape) and dtype_of(var) == dtype
