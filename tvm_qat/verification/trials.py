"""How far the outputs are from the simulation's with some nodes in float, measured by the NumPy reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from tvm_qat import pipeline
from tvm_qat.ir import Expr, IRModule, Var, bindings_of, op_name
from tvm_qat.options import Options
from tvm_qat.passes.fold import movement
from tvm_qat.passes.keep_float import keep_float, operators_of
from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams
from tvm_qat.verification.difference import Difference
from tvm_qat.verification.evaluate import evaluate_module
from tvm_qat.verification.modules import LAID_OUT, Modules
from tvm_qat.verification.points import grids_of, results_of
from tvm_qat.verification.result import Trial
from tvm_qat.verification.stages import Outputs

Array = npt.NDArray[Any]
Names: TypeAlias = tuple[str, ...]
Progress = Callable[[str, float], None]

LEVELS = 255
"""Of an output without a grid: what it ranges over in the simulation counts as that many steps."""


class Trials:
    """Measures sets of nodes, each once.

    source : as imported, with known shapes. data, outputs : what went in, and what came out while
    nothing was kept but what `passes` says. progress : called before each trial with the share of all
    trials that is done, which is a guess.
    """

    def __init__(
        self, modules: Modules, source: IRModule, passes: Options, data: Sequence[Mapping[str, Array]],
        outputs: Sequence[Outputs], progress: Progress,
    ) -> None:  # fmt: skip
        self._source, self._passes, self._data, self._progress = source, passes, data, progress
        self._expected = [each.simulation for each in outputs]
        self._grids = _grids_of_outputs(modules)
        self._ranges = [_step(values) for values in zip(*self._expected, strict=True)]
        self._known: dict[Names, float] = {}
        self._share = 0.0
        self._order = list(operators_of(source))
        self._note(self.kept(()), [each.reference for each in outputs])

    def kept(self, nodes: Names) -> Names:
        """`nodes`, in the model's order, after what was to be kept in any case."""
        return tuple(dict.fromkeys([*self._passes.keep_float, *sorted(nodes, key=self._order.index)]))

    def steps(self, nodes: Names, left: int = 1) -> float:
        """Most steps between an output and the simulation's with `nodes` in float.

        left : trials to come with this one, about.
        """
        kept = self.kept(nodes)
        if kept not in self._known:
            self._progress(f"suggest: trial {len(self._known)}", self._share)
            self._note(kept, self._run(kept))
            self._share += (1 - self._share) / max(left, 1)
        return self._known[kept]

    @property
    def made(self) -> tuple[Trial, ...]:
        return tuple(Trial(kept, steps) for kept, steps in self._known.items())

    def _note(self, kept: Names, found: Sequence[Sequence[Array]]) -> None:
        self._known[kept] = max(map(self._apart, found, self._expected), default=0.0)

    def _run(self, kept: Names) -> list[list[Array]]:
        passes = self._passes
        marked = keep_float(self._source, kept, passes.only_int8)
        disabled = {*passes.disabled_passes, *LAID_OUT}
        reference = pipeline.run(marked, rounding=passes.rounding, disabled=disabled)
        return [evaluate_module(reference, inputs) for inputs in self._data]

    def _apart(self, found: Sequence[Array], expected: Sequence[Array]) -> float:
        """Of one input's outputs."""
        most = 0.0
        for ours, theirs, grid, step in zip(found, expected, self._grids, self._ranges, strict=True):
            difference = Difference(None, integers=True)
            difference.add(_in_steps(ours, grid, step), _in_steps(theirs, grid, step))
            most = max(most, difference.figures().max_steps or 0.0)
        return most


def _grids_of_outputs(modules: Modules) -> list[QParams | None]:
    """Of each output of the model that has one, also if its elements were moved since."""
    canonical = modules.canonical["main"]
    grids, bound = grids_of(canonical), {b.var: b.value for b in bindings_of(canonical)}

    def grid_of(result: Expr) -> QParams | None:
        while isinstance(result, Var) and result not in grids and result in bound:
            value = bound[result]
            if op_name(value) not in movement.MOVES:
                return None
            result = value.args[0]
        grid = grids.get(result)
        # an axis may have been moved
        return grid if grid is None or grid.axis is None or result in ends else None

    ends = results_of(canonical)
    return [grid_of(result) for result in ends]


def _step(values: Sequence[Array]) -> float:
    """A step of an output without a grid, for all its values; 1 of integers."""
    if any(value.dtype.kind != "f" for value in values):
        return 1.0
    finite = np.concatenate([value[np.isfinite(value)].reshape(-1) for value in values])
    wide = float(np.ptp(finite.astype(np.float64))) if finite.size else 0.0
    return wide / LEVELS or 1.0


def _in_steps(values: Array, grid: QParams | None, step: float) -> Array:
    if values.dtype.kind != "f":
        return values
    if grid is None:
        return values.astype(np.float64) / step
    # whole steps: float32 multiplied them by the scale
    return np.rint(values / arithmetic.spread(grid.scale.astype(np.float64), grid.axis, values.ndim))
