"""Where the time of one inference goes: each kernel with its rate, beside what the machine can do."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tvm_qat.bench.runners import choose_cores, environment
from tvm_qat.errors import InputError


@dataclass(frozen=True)
class Layer:
    """name : source node. macs : multiply-accumulates of this kernel, 0 if it has none.

    gops : 2e-9 * macs / seconds. share : of the time of all kernels. of_peak : of the measured
    peak, None without macs or without a peak.
    """

    name: str
    kernel: str
    seconds: float
    share: float
    macs: int
    gops: float | None
    of_peak: float | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Profile:
    """peak : GOPS of the machine's `instruction` in registers, on the threads asked for."""

    layers: tuple[Layer, ...]
    seconds: float
    macs: int
    peak: float | None
    instruction: str

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "layers": [layer.to_json() for layer in self.layers]}


def profile(package: Path, inputs: str, threads: int) -> Profile:
    """Measured in a process of its own, on the cores that the comparison uses."""
    command = [sys.executable, "-m", "tvm_qat.bench.profiler", str(package), inputs]
    command += [",".join(map(str, choose_cores(threads)))]
    own = {**environment(None, threads), "TVM_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=own, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise InputError(f"the layers cannot be measured: {lines[-1] if lines else done.returncode}")
    found = json.loads(done.stdout.splitlines()[-1])
    peak = found["peak"] * threads if found["peak"] else None
    return table(found["kernels"], found["macs"], peak, found["instruction"])


def table(
    kernels: Sequence[Mapping[str, Any]], macs: Mapping[str, int], peak: float | None, instruction: str = ""
) -> Profile:
    """kernels : name, kernel and seconds of each call in order. macs : of each source node.

    Where several kernels bear one node's name, the slowest is the one that multiplies.
    """
    total = sum(kernel["seconds"] for kernel in kernels)
    workers: dict[str, int] = {}
    for place, kernel in enumerate(kernels):
        best = workers.get(kernel["name"])
        if best is None or kernel["seconds"] > kernels[best]["seconds"]:
            workers[kernel["name"]] = place
    rows = tuple(
        _layer(kernel, macs.get(kernel["name"], 0) if workers[kernel["name"]] == place else 0, total, peak)
        for place, kernel in enumerate(kernels)
    )
    return Profile(rows, total, sum(row.macs for row in rows), peak, instruction)


def _layer(kernel: Mapping[str, Any], macs: int, total: float, peak: float | None) -> Layer:
    seconds = kernel["seconds"]
    gops = 2e-9 * macs / seconds if macs and seconds else None
    of_peak = gops / peak if gops is not None and peak else None
    return Layer(kernel["name"], kernel["kernel"], seconds, seconds / total, macs, gops, of_peak)
