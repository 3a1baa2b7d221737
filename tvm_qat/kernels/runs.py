"""How a run of neighbouring activations is cut into loads, and those into the steps of an instruction.

A load brings the activations of `isa.steps` steps, of `isa.depth` each. What is left at the end of a
run comes with a last load that ends with the run and repeats some activations before; runs shorter
than a load go step by step, in the same way:

    depth 4, 2 steps a load, a run of 21:    0..7 | 8..15 | 13..20, of which the steps 13..16 and 17..20
    depth 4, 4 steps a load, a run of 10:    0..3 | 4..7 | 6..9

Weights are zero where an activation was added before. So nothing is read beyond a run.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_qat.kernels.isa import DotProduct
from tvm_qat.qnn.arithmetic import Array


@dataclass(frozen=True)
class Load:
    """first : its first activation. steps : that it brings. used : the first of them that adds.

    step : number of that one among the steps of the run.
    """

    first: int
    steps: int
    used: int
    step: int


def whole_loads(isa: DotProduct, run: int) -> int:
    """How many loads there are before the last ones."""
    return run // isa.reach


def last_loads(isa: DotProduct, run: int) -> list[Load]:
    done = whole_loads(isa, run) * isa.reach
    step, rest = done // isa.depth, run - done
    if rest and run >= isa.reach > isa.depth:
        return [Load(run - isa.reach, isa.steps, isa.steps - -(-rest // isa.depth), step)]
    starts = [min(first, run - isa.depth) for first in range(done, run, isa.depth)]
    return [Load(first, 1, 0, step + i) for i, first in enumerate(starts)]


def load_starts(isa: DotProduct, run: int) -> list[int]:
    """First activation of every load."""
    whole = [i * isa.reach for i in range(whole_loads(isa, run))]
    return whole + [load.first for load in last_loads(isa, run)]


def step_starts(isa: DotProduct, run: int) -> list[tuple[int, int]]:
    """(first activation, how many count: the last ones) of every step."""
    whole = whole_loads(isa, run) * isa.steps
    starts = [i * isa.depth for i in range(whole)]
    starts += [
        load.first + i * isa.depth for load in last_loads(isa, run) for i in range(load.used, load.steps)
    ]
    ends = [0, *(start + isa.depth for start in starts)]
    return [(start, start + isa.depth - end) for start, end in zip(starts, ends, strict=False)]


def split_runs(isa: DotProduct, weights: Array) -> Array:
    """[..., run] -> [..., steps, depth], zeros where an activation was added before."""
    starts = step_starts(isa, weights.shape[-1])
    places = np.array([[start + k for k in range(isa.depth)] for start, _ in starts])
    counts = np.array([[k >= isa.depth - kept for k in range(isa.depth)] for _, kept in starts])
    return np.where(counts, weights[..., places], 0)
