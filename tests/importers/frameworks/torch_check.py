"""An imported network beside torch's own simulation of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import tvm_qat
from tests.support.run import imported
from tvm_qat import pipeline
from tvm_qat.ir import IRModule
from tvm_qat.report.layers import report_of
from tvm_qat.verification.evaluate import evaluate_module


def check_simulation(
    source: Any, images: torch.Tensor, expected: np.ndarray, *, step: float, ties: float = 0.01,
    compiled: bool = False, **options: Any,
) -> IRModule:  # fmt: skip
    """Imported, the model computes what torch does; folded (or compiled), within a step of it.

    step : scale of the last grid (or a bound on what one step of it becomes). ties : share of the
    outputs that may be one step away, because integers round once where floats rounded before.
    """
    mod = imported(source, **options)
    simulated = evaluate_module(mod, [images.numpy()])[0]
    np.testing.assert_allclose(simulated, expected, rtol=0, atol=step * 1e-3)
    if compiled:
        found = next(iter(tvm_qat.compile(mod).run(images.numpy()).values()))
    else:
        found = evaluate_module(pipeline.run(mod), [images.numpy()])[0]
    off = np.abs(np.asarray(found) - expected)
    assert off.max() <= 1.001 * step, off.max() / step
    assert np.mean(off > 0.5 * step) <= ties, np.mean(off > 0.5 * step)
    assert np.mean(np.asarray(found).argmax(1) == expected.argmax(1)) == 1
    return mod


def integer_share(mod: IRModule) -> float:
    """The share of multiply-accumulates that run on integers."""
    return float(report_of(pipeline.run(mod), mod).to_json()["totals"]["int8_mac_share"])
