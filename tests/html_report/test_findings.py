"""The worst layer comes first, and is told why."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.verified import NOISY, document, verified, with_fault
from tvm_qat.html_report.findings import shortened


def first(shown: dict[str, Any]) -> tuple[str, str, str]:
    found = shown["findings"][0]
    return found["level"], found["title"], found["layer"]


def test_compiled_code_that_differs_is_wrong_however_little():
    shown = document(with_fault("compiled", "fc2", replace(NOISY, differing=1, max_steps=1.0)))
    assert first(shown) == ("bad", "Compiled against reference", "fc2")


def test_a_layer_beyond_what_ties_explain_is_wrong():
    shown = document(with_fault("reference", "fc2/add"))
    assert first(shown) == ("bad", "Reference against simulation", "fc2/add")
    text = shown["findings"][0]["text"]
    assert "60% of its elements differ by at most 3 steps" in text and "ties explain 25%" in text


def test_ties_alone_are_a_note_behind_a_range_that_is_too_wide():
    ties = replace(NOISY, max_steps=1.0, tie_share=1.0)
    levels = {
        found["title"]: found for found in document(with_fault("reference", "fc2/add", ties))["findings"]
    }
    assert levels["Reference against simulation"]["level"] == "note"
    assert levels["Range"]["level"] == "warn"


def test_another_engine_that_differs_is_no_fault():
    found = with_fault("reference", "fc2/add", replace(NOISY, tie_share=0.0))
    (stage,) = [stage for stage in found.stages if stage.name == "reference"]
    other = replace(stage, against="onnxruntime")
    shown = document(replace(verified(), stages=(*verified().stages, other)))
    lines = {line["title"]: line for line in shown["findings"]}
    assert lines["Reference against onnxruntime"]["level"] == "note"
    assert lines["Reference against onnxruntime"]["layer"] == "fc2/add"
    assert lines["Reference against simulation"]["level"] == "good"


def test_without_a_fault_every_line_says_what_was_looked_at():
    found = replace(verified(), quantizers=tuple(replace(q, warnings=()) for q in verified().quantizers))
    lines = {line["title"]: line for line in document(found)["findings"]}
    assert lines["Compiled against reference"]["level"] == "good"
    assert lines["Compiled against reference"]["text"].startswith("0 of ")
    assert lines["Ranges"]["level"] == "good"
    assert lines["Float"]["layer"] == "softmax" and lines["Float"]["level"] == "note"
    assert lines["Time"]["layer"] == "softmax" and "the slowest kernel" in lines["Time"]["text"]


def test_long_names_keep_both_ends_and_joined_ones_their_first_part():
    assert shortened("short", 12) == "short"
    cut = shortened("/body/body.9/branch/branch.1/Conv", 20)
    assert len(cut) == 20 and cut.startswith("/body/") and cut.endswith("branch.1/Conv")
    assert shortened("model/relu;model/batch_norm;model/conv", 20) == "model/relu;…"
