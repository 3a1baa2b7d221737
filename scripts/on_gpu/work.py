"""One part on the device, in a process of its own: a fault of a kernel ends the process, not the check.

    python -m on_gpu.work FOLDER PART FIRST ROUNDS

Runs the cases from number FIRST on, then times the part if it is one of the benchmark. Every finding is
a line of JSON on stdout: {"begun": N}, {"case": N, "wrong": elements, "of": elements}, and {"times": ...}.
Without a part it says what the device is: {"name": ..., "arch": ...}, or {"missing": what it lacks}.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples/python"))

# tvm_ffi imports torch wherever it is installed: seconds in each process, and few parts need it.
sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
import run_package as runtime  # noqa: E402

if sys.modules["torch"] is None:
    del sys.modules["torch"]

from on_gpu import peers  # noqa: E402
from on_gpu.parts import Array, Case, Description, Part, array_of, library_of, read, repeated  # noqa: E402
from on_gpu.timing import Contender, timed  # noqa: E402

Finding = dict[str, Any]

_ARCHITECTURE, _NAME = 4, 5
"""Attributes of a device, as TVM's runtime numbers them."""


def work(folder: Path, name: str, first: int, rounds: int) -> Iterator[Finding]:
    """The findings; raises runtime.Missing without a driver, parts.Unreadable if a file is damaged."""
    description = read(folder)
    part = description.part(name)
    device = runtime.start(description.device, [folder / "lib"])
    with tempfile.TemporaryDirectory(prefix="gpu_check_") as temporary:
        machine = runtime.executable(library_of(folder, part, Path(temporary)), device)
    with np.load(folder / f"{name}.npz") as stored:
        for number, case in enumerate(part.cases[first:], first):
            yield {"begun": number}
            yield {"case": number, **_compare(machine, device, case, number, stored)}
    if part.macs and rounds:
        yield {"times": timed_part(description, part, machine, device, rounds)}


def about(folder: Path) -> Finding:
    """Name and architecture of the device, e.g. sm_90; the latter is None of a CPU."""
    try:
        device = runtime.start(read(folder).device, [folder / "lib"])
    except runtime.Missing as error:
        return {"missing": str(error)}
    return {"name": runtime.attribute(device, _NAME), "arch": arch_of(device)}


def arch_of(device: Any) -> str | None:
    version = runtime.attribute(device, _ARCHITECTURE)
    return None if version is None else "sm_" + version.replace(".", "")


def _compare(machine: Any, device: Any, case: Case, number: int, stored: Any) -> Finding:
    arrays = [array_of(one, _stored(stored, f"{number}.in{k}")) for k, one in enumerate(case.inputs)]
    results = machine[case.function](*(runtime.to_device(array, device) for array in arrays))
    wrong = total = 0
    for k, result in enumerate(runtime.parts_of(results)):
        have, want = runtime.to_host(result), repeated(stored[f"{number}.out{k}"], case.outputs[k])
        wrong += differing(have, want)
        total += want.size
    return {"wrong": wrong, "of": total}


def _stored(stored: Any, key: str) -> Array | None:
    return stored[key] if key in stored.files else None


def differing(have: Array, want: Array) -> int:
    """Elements with other bits, all NaN being the same; all of them if shape or dtype is another."""
    if (have.shape, have.dtype) != (want.shape, want.dtype):
        return want.size
    bits = f"u{want.dtype.itemsize}"
    other = have.reshape(-1).view(bits) != want.reshape(-1).view(bits)
    if want.dtype.kind == "f":
        other &= ~(np.isnan(have) & np.isnan(want)).reshape(-1)
    return int(np.count_nonzero(other))


def timed_part(description: Description, part: Part, machine: Any, device: Any, rounds: int) -> Finding:
    """Seconds of one run in each round, of ours and of each peer in turns."""
    case = part.cases[0]
    tensors = [runtime.to_device(array_of(one), device) for one in case.inputs]
    function = machine[case.function]
    ours = Contender("ours", lambda: function(*tensors), lambda: runtime.wait(device))
    others, note = peers.of(part, description.device)
    return {"seconds": timed([ours, *others], rounds), "notes": [one.note for one in others] + [note]}


def main(folder: str, part: str = "", first: str = "0", rounds: str = "0") -> int:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what torch prints must not look like a finding
    for finding in work(Path(folder), part, int(first), int(rounds)) if part else [about(Path(folder))]:
        print(json.dumps(finding), file=replies, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
