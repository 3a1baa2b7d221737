"""Runs packages made for aarch64 under qemu, by the C++ host of examples/cpp and TVM's runtime alone."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Array = np.ndarray[Any, Any]

FOLDER = Path(os.environ.get("TVM_QAT_ARM", Path(__file__).resolve().parents[2] / ".arm"))
TRIPLE = "aarch64-linux-gnu"
COMPILER = f"{TRIPLE}-gcc"

needs_arm = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        not (FOLDER / "made_of").is_file() and not os.environ.get("CI"),
        reason="needs scripts/setup_arm, run once",
    ),
]
"""In CI it must have run: without it these tests fail instead of being left out."""

LEVELS = {"neon": ("neon",), "dotprod": ("neon", "dotprod"), "i8mm": ("neon", "dotprod", "i8mm")}
"""Of aarch64: features by LLVM's names."""
PROCESSORS = {"neon": "cortex-a72", "dotprod": "neoverse-n1", "i8mm": "max"}
"""qemu's names of processors that have them, and of the first two, no more."""


def target(level: str) -> dict[str, Any]:
    return {"kind": "llvm", "mtriple": TRIPLE, "mattr": [f"+{name}" for name in LEVELS[level]]}


def run_on_arm(
    library: bytes, level: str, calls: Sequence[tuple[str, Sequence[Array]]], folder: Path
) -> list[list[Array]]:
    """The outputs of (function, inputs) of a package's `mod.so`, run one after another in one process."""
    (folder / "mod.so").write_bytes(library)
    words: list[str] = []
    for i, (function, inputs) in enumerate(calls):
        files = [f"in{i}_{k}.npy" for k in range(len(inputs))]
        for file, array in zip(files, inputs, strict=True):
            np.save(folder / file, np.asarray(array, order="C"))
        words += [*(["--"] if words else []), function, f"out{i}_", *files]
    done = subprocess.run(
        ["qemu-aarch64-static", "-cpu", PROCESSORS[level], "-L", f"/usr/{TRIPLE}",
         str(FOLDER / "run_package"), "mod.so", *words],
        cwd=folder, env={**os.environ, "TVM_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return [_outputs(folder, f"out{i}_") for i in range(len(calls))]


def _outputs(folder: Path, prefix: str) -> list[Array]:
    found = sorted(folder.glob(f"{prefix}*.npy"), key=lambda path: int(path.stem.rpartition("_")[2]))
    return [np.load(path) for path in found]
