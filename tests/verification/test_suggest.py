"""The layers to keep in float: those whose fault moves the outputs, and no other."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from tests.verification.network import Fault, images, network, planted, with_attrs, with_operand
from tvm_qat import pipeline
from tvm_qat.ir import IRModule, bindings_of, op_name, source_of
from tvm_qat.passes.keep_float import keep_float
from tvm_qat.verification import Suggestion, verify
from tvm_qat.verification.evaluate import evaluate_module

Place = tuple[str, str, Fault]


def moved(steps: int) -> Fault:
    return with_operand("output_zero_point", lambda zero_point: zero_point + steps)


FIRST = ("conv1", "qnn.requantize", moved(30))
SECOND = ("conv2", "qnn.requantize", moved(60))
LAST = ("conv3", "qnn.requantize", moved(9))
ROUNDED = ("conv3", "qnn.requantize", with_attrs(rounding="floor"))
IMAGE = ("image/quantize", "qnn.quantize", moved(-9))


def planted_where_it_can_be(mod: IRModule, place: Place) -> IRModule:
    """What is kept in float is free of the fault."""
    calls = {(source_of(b.value), op_name(b.value)) for b in bindings_of(mod["main"])}
    return planted(mod, *place) if place[:2] in calls else mod


def suggestion(monkeypatch: pytest.MonkeyPatch, within: float, *places: Place) -> Suggestion:
    """For a network whose folding makes the faults."""
    cancel = pipeline.PASSES["cancel_requantize_pairs"]
    faulty = "cancel_requantize_pairs"
    monkeypatch.setitem(pipeline.PASSES, faulty, lambda m: reduce(planted_where_it_can_be, places, cancel(m)))
    found = verify(network(), images(), target="llvm", suggest=within).suggestion
    assert found is not None
    # what is said of the result is true of it
    assert found.after == steps_with(*found.keep_float) and found.reached == (found.after <= within)
    assert [found.before, *([found.after] if found.keep_float else [])] == [
        trial.max_steps for trial in found.trials if trial.keep_float in ((), found.keep_float)
    ]
    return found


def steps_with(*nodes: str) -> float:
    """Most steps of the output between the reference with `nodes` in float and the simulation."""
    steps = 0.0
    for image in images()["image"]:
        (simulated,) = evaluate_module(network(), [image[None]])
        (found,) = evaluate_module(pipeline.run(keep_float(network(), nodes)), [image[None]])
        steps = max(steps, float(np.abs(found - simulated).max() / 2.0**-1))
    return steps


def test_the_faulty_layer_is_named_and_no_other(monkeypatch: pytest.MonkeyPatch):
    found = suggestion(monkeypatch, 1, SECOND)
    assert found.layers == found.keep_float == ("conv2",)
    assert found.before > 1 and found.reached and found.fewest


def test_a_difference_within_the_limit_is_left_alone(monkeypatch: pytest.MonkeyPatch):
    assert suggestion(monkeypatch, 1, SECOND, ROUNDED).layers == ("conv2",)


@pytest.mark.parametrize(("places", "fewest"), [((SECOND, LAST), True), ((FIRST, SECOND, LAST), False)])
def test_of_several_faulty_layers_none_can_be_left_out(
    monkeypatch: pytest.MonkeyPatch, places: tuple[Place, ...], fewest: bool
):
    found = suggestion(monkeypatch, 1, *places)
    assert set(found.layers) == {name for name, _, _ in places}
    assert found.reached and found.fewest is fewest
    for node in found.keep_float:
        assert steps_with(*(other for other in found.keep_float if other != node)) > 1


def test_nothing_is_suggested_where_nothing_differs(monkeypatch: pytest.MonkeyPatch):
    found = suggestion(monkeypatch, 1)
    assert found.layers == found.keep_float == () and found.reached and found.fewest
    assert len(found.trials) == 1


def test_where_no_layer_can_help_it_is_said(monkeypatch: pytest.MonkeyPatch):
    found = suggestion(monkeypatch, 1, IMAGE)
    assert not found.reached and found.after > 1


def test_where_nothing_is_enough_the_best_is_named(monkeypatch: pytest.MonkeyPatch):
    found = suggestion(monkeypatch, 0, IMAGE, LAST)
    assert not found.reached and "conv3" in found.layers
    assert 0 < found.after < found.before
    assert found.after == min(trial.max_steps for trial in found.trials)
