"""Faults that are planted into a stage are found there and named."""

from __future__ import annotations

import numpy as np
import pytest

from tests.verification.network import (
    Fault,
    images,
    network,
    planted,
    swapped,
    with_attrs,
    with_bias,
    with_operand,
)
from tvm_qat import pipeline
from tvm_qat.compiler import compile_folded
from tvm_qat.ir import IRModule
from tvm_qat.verification.compiled import Compiled
from tvm_qat.verification.modules import modules_of
from tvm_qat.verification.result import Stage, summary_of
from tvm_qat.verification.stages import Stages

SCALE_OFF = ("conv2", "qnn.requantize", with_operand("input_scale", lambda scale: scale * 1.02))
WRONG_AXIS = ("conv2", "qnn.requantize", with_attrs(input_axis=2))
ZERO_POINT_OF_RESULT = ("conv2", "qnn.requantize", with_operand("output_zero_point", lambda z: z + 1))
ZERO_POINT_OF_INPUT = ("conv1", "qnn.conv2d", with_operand("input_zero_point", lambda z: z + 1))
BIAS_SCALE = ("conv3", "relax.add", with_bias(2.0))
SATURATING = ("conv2", "qnn.requantize", with_attrs(qmax=140))
CONCAT_ORDER = ("concat", "qnn.concatenate", swapped)
ROUNDING = ("conv2", "qnn.requantize", with_attrs(rounding="half_up"))
FLOOR = ("conv3", "qnn.requantize", with_attrs(rounding="floor"))

Place = tuple[str, str, Fault]
NAMES = {
    "scale": SCALE_OFF, "axis": WRONG_AXIS, "zero point": ZERO_POINT_OF_RESULT,
    "zero point of the input": ZERO_POINT_OF_INPUT, "bias": BIAS_SCALE, "saturation": SATURATING,
    "concat": CONCAT_ORDER, "floor": FLOOR,
}  # fmt: skip


def folded_with(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    """From now on folding makes the fault."""
    cancel = pipeline.PASSES["cancel_requantize_pairs"]
    monkeypatch.setitem(pipeline.PASSES, "cancel_requantize_pairs", lambda mod: planted(cancel(mod), *place))


def stages_of(source: IRModule, compiled_from: IRModule | None = None) -> dict[str, Stage]:
    modules = modules_of(source)
    package = compile_folded(source, compiled_from or modules.fused, "llvm")
    stages = Stages(modules, Compiled(modules.fused, package))
    for image in images()["image"]:
        stages.add({"image": image[None]})
    return {stage.name: stage for stage in stages.stages()}


def differing(stage: Stage) -> list[str]:
    return [layer.name for layer in stage.layers if layer.figures.unexplained]


def test_without_a_fault_nothing_differs_beyond_ties():
    stages = stages_of(network())
    for stage in stages.values():
        assert differing(stage) == []
        assert summary_of(stage).elements > 300
    assert summary_of(stages["compiled"]).differing == 0


@pytest.mark.parametrize("fault", NAMES, ids=str)
def test_a_fault_of_folding_is_found_at_its_layer(fault: str, monkeypatch: pytest.MonkeyPatch):
    folded_with(monkeypatch, NAMES[fault])
    stages = stages_of(network())
    summary = summary_of(stages["reference"])
    assert differing(stages["reference"]) == [NAMES[fault][0]]
    assert summary.first_layer == summary.worst_layer == NAMES[fault][0]
    assert summary.tie_share < 1 and summary.max_steps >= 1
    # compiled code does what was folded, and what came before is as trained
    assert summary_of(stages["compiled"]).differing == 0
    assert differing(stages["canonical"]) == []


@pytest.mark.parametrize(
    "fault",
    [*(pytest.param(name, marks=pytest.mark.slow) for name in NAMES if name != "bias"), "bias", "rounding"],
)
def test_a_fault_of_a_kernel_is_found_at_its_layer(fault: str, monkeypatch: pytest.MonkeyPatch):
    place = {**NAMES, "rounding": ROUNDING}[fault]
    with monkeypatch.context() as patched:
        folded_with(patched, place)
        faulty = pipeline.run(network())
    stages = stages_of(network(), compiled_from=faulty)
    summary = summary_of(stages["compiled"])
    assert summary.first_layer == place[0] and summary.differing
    assert differing(stages["reference"]) == []


def test_a_rounding_that_differs_at_ties_only_is_seen_beside_the_simulation_too(
    monkeypatch: pytest.MonkeyPatch,
):
    folded_with(monkeypatch, ROUNDING)
    layers = {layer.name: layer.figures for layer in stages_of(network())["reference"].layers}
    assert [name for name, figures in layers.items() if figures.differing and figures.max_steps] == ["conv2"]
    assert layers["conv2"].tie_share == 1.0 and layers["conv2"].max_steps == 1


def test_what_a_layer_inherits_is_told_from_its_own(monkeypatch: pytest.MonkeyPatch):
    folded_with(monkeypatch, ZERO_POINT_OF_RESULT)
    layers = {layer.name: layer for layer in stages_of(network())["reference"].layers}
    inherited = layers["conv3"].inherited
    assert layers["conv3"].figures.differing == 0
    assert inherited is not None and inherited.differing > 0
    assert np.isfinite(inherited.sqnr_db or np.nan)
