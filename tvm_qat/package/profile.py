"""Where the time of one inference goes, kernel by kernel.

Where one function calls all kernels, it can be asked for each of them alone. Elsewhere TVM's
virtual machine calls an instrument before and after every call it makes; the figures then hold the
way back from the callback as well, a third of a microsecond.
"""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy.typing as npt

_LEAST = 1e-9
"""Seconds: no kernel takes less."""


@dataclass(frozen=True)
class KernelTime:
    """name : the source node whose work it is, or the kernel's own; seconds : median of one call.

    macs : multiply-accumulates of the call, for one sample where the batch is known at run time only.
    """

    name: str
    kernel: str
    seconds: float
    macs: int = 0

    @property
    def gops(self) -> float | None:
        """10^9 operations a second, two for each multiply-accumulate; None without any."""
        return 2e-9 * self.macs / self.seconds if self.macs else None

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "gops": self.gops}


def with_macs(rows: Sequence[KernelTime], layers: Sequence[Mapping[str, Any]]) -> list[KernelTime]:
    """The rows with their products. layers : as `Package.layers`; the first of a layer's functions
    multiplies, in as many calls as bear its name.
    """
    calls: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(rows):
        calls[row.name, _unbound(row.kernel)].append(place)
    found = list(rows)
    for layer in layers:
        places = calls.get((layer["name"], next(iter(layer["functions"]), "")), ())
        for place in places:
            found[place] = replace(found[place], macs=layer["macs"] // len(places))
    return found


def _unbound(kernel: str) -> str:
    """The kernel that a function calls which binds its constants (kernels.constant_block)."""
    return re.sub(r"_bound\d*\Z", "", kernel)


def profile_steps(
    run: Callable[[int, int], object], steps: Sequence[str], sources: Mapping[str, Sequence[str]], repeat: int
) -> list[KernelTime]:
    """The steps of one inference in order, each the median of `repeat` inferences.

    run : does the steps from its first to before its second argument. steps : the kernel of each.
    What a call without steps takes is subtracted.
    """
    times: list[list[float]] = [[] for _ in range(len(steps) + 1)]
    clock = time.perf_counter
    for _ in range(repeat):
        for number, figures in enumerate(times):
            begin = clock()
            run(number, min(number + 1, len(steps)))
            figures.append(clock() - begin)
    *each, empty = map(statistics.median, times)
    nth: dict[str, int] = defaultdict(int)
    rows = []
    for kernel, seconds in zip(steps, each, strict=True):
        name = _source(sources.get(kernel, ()), nth[kernel]) or kernel
        rows.append(KernelTime(name, kernel, max(seconds - empty, _LEAST)))
        nth[kernel] += 1
    return rows


def profile(
    machine: Any, call: Callable[[], object], sources: Mapping[str, Sequence[str]], repeat: int
) -> list[KernelTime]:
    """The calls of one inference in order, each the median of `repeat` inferences.

    machine : relax VirtualMachine that `call` runs on; it keeps the instrument, so it is used for
        nothing else afterwards. sources : the nodes of each kernel's calls.
    """
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    seen: dict[str, int] = {}
    clock, begin = time.perf_counter, [0.0]

    def instrument(_func: Any, kernel: str, before: bool, _result: Any, *_args: Any) -> int:
        now = clock()
        if not before and not kernel.startswith("vm.builtin."):
            seen[kernel] = seen.get(kernel, -1) + 1
            times[kernel, seen[kernel]].append(now - begin[0])
        begin[0] = clock()
        return 0

    machine.set_instrument(instrument)
    for _ in range(repeat):
        seen.clear()
        call()
    return [
        KernelTime(_source(sources.get(kernel, ()), nth) or kernel, kernel, statistics.median(figures))
        for (kernel, nth), figures in times.items()
    ]


def results_of(
    machine: Any, call: Callable[[], object], kernels: Mapping[str, Sequence[str]]
) -> list[tuple[str, npt.NDArray[Any]]]:
    """(kernel, its result, the last operand) for each call of `kernels` in one inference, in order.

    machine : as for `profile`.
    """
    found: list[tuple[str, npt.NDArray[Any]]] = []

    def instrument(_func: Any, kernel: str, before: bool, _result: Any, *args: Any) -> int:
        if not before and kernel in kernels:
            found.append((kernel, args[-1].numpy()))
        return 0

    machine.set_instrument(instrument)
    call()
    return found


def _source(names: Sequence[str], nth: int) -> str:
    return names[nth] if nth < len(names) else ""
