"""Times a package's kernels and the machine's peak; what `layers` starts as a process of its own.

    python -m tvm_qat.bench.profiler PACKAGE INPUTS.npz CORES

The last line on stdout is JSON: {"kernels": [...], "macs": {node: count}, "peak": GOPS or null,
"instruction": name}.
"""

from __future__ import annotations

import json
import os
import sys

import numpy as np

_REPEAT = 30
_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    file, inputs, cores = arguments
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    from tvm_qat.bench.peak import measured_peak
    from tvm_qat.package import load

    package = load(file)
    with np.load(inputs, allow_pickle=False) as data:
        arrays = {name: data[name] for name in data.files}
    each = min(package.benchmark(arrays, repeat=2))
    before = measured_peak()
    kernels = package.profile(arrays, repeat=max(3, min(_REPEAT, int(_SECONDS / each))))
    after = measured_peak()
    found = {
        "kernels": [kernel.to_json() for kernel in kernels],
        "macs": {layer["name"]: layer["macs"] for layer in package.layers if layer["macs"]},
        "peak": max(before[1], after[1]) or None,
        "instruction": before[0],
    }
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
