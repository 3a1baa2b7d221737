"""What `verify` found of the smaller demo model, and the page's data of it with made-up times."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import tvm_qat
from tvm_qat.bench.layers import table
from tvm_qat.demo import demo_files
from tvm_qat.html_report.document import document_of
from tvm_qat.verification import Suggestion, Trial, Verification
from tvm_qat.verification.difference import Figures

NOISY = Figures(100, 60, 3.0, 0.9, None, None, 0.25, 0.98, 14.0)
"""60 of 100 elements differ, by up to 3 steps; ties explain a quarter of them."""


@cache
def verified() -> Verification:
    with demo_files() as folder:
        return tvm_qat.verify(folder / "digits_mlp.onnx", samples=1, target="llvm")


def with_fault(stage: str, layer: str, figures: Figures = NOISY) -> Verification:
    """As if a layer differed in a stage."""
    found = verified()
    stages = tuple(
        replace(each, layers=tuple(
            replace(row, figures=figures) if each.name == stage and row.name == layer else row
            for row in each.layers
        ))
        for each in found.stages
    )  # fmt: skip
    return replace(found, stages=stages)


def suggesting() -> Verification:
    """As if a layer had been found that is enough to keep in float."""
    kept = ("fc2", "fc2 relu")
    trials = (Trial((), 9.0), Trial(kept, 0.5))
    made = Suggestion(1.0, 9.0, 0.5, ("fc2/add",), kept, reached=True, fewest=True, trials=trials)
    return replace(verified(), suggestion=made)


def document(found: Verification | None = None) -> dict[str, Any]:
    chosen = found or verified()
    assert chosen.subject is not None
    kernels = [
        {"name": row["name"], "kernel": f"{row['name']}_kernel", "seconds": 1e-6 * (number + 1)}
        for number, row in enumerate(chosen.subject.package.layers)
    ]
    macs = {row["name"]: row["macs"] for row in chosen.subject.package.layers}
    return document_of(chosen, chosen.subject, table(kernels, macs, 100.0, "made up"))
