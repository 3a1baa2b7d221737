from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import tvm_qat
from tests.support.verified import document, suggesting, verified
from tvm_qat.errors import InputError


def test_everything_named_by_a_place_is_there():
    shown = document()
    places = range(len(shown["layers"]))
    rows = [row["layer"] for stage in shown["stages"] for row in stage["rows"]]
    rows += [each["layer"] for each in [*shown["quantizers"], *shown["kernels"]]]
    rows += [node["layer"] for node in shown["graph"]["nodes"] if node["kind"] == "operator"]
    assert all(row in places for row in rows)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_layers_say_how_they_run():
    states = {layer["name"]: layer["state"] for layer in document()["layers"]}
    assert states["fc1"] == "integer" and states["softmax"] == "float" and states["fc1/relu"] == "absorbed"
    assert list(states).index("fc1") < list(states).index("fc2") < list(states).index("softmax")


def test_a_layer_says_what_it_is_a_part_of():
    shown = document()["layers"]
    rows = {layer["name"]: layer for layer in shown}
    relu, add = rows["fc1/relu"], rows["fc1/add"]
    assert shown[relu["owner"]]["name"] == "fc1/add" and relu["how"] == "joined its neighbours"
    assert shown[add["host"]]["name"] == "fc1" and rows["fc1"]["host"] is None
    (read,) = rows["fc2"]["reads"]
    assert shown[read["layer"]]["name"] == "fc1/add" and read["dtype"] == "int8"
    assert read["scale"][0] == read["scale"][1] > 0


def test_quantizers_belong_to_layers():
    shown = document()
    names = {each["name"]: shown["layers"][each["layer"]]["name"] for each in shown["quantizers"]}
    assert names["fc1/weight/dequantize"] == "fc1" and names["fc1/quantize"] == "fc1/add"


def test_a_stage_that_inherits_is_shown_alone_and_as_it_runs():
    kinds = [(stage["name"], stage["inherited"]) for stage in document()["stages"]]
    assert kinds == [("canonical", False), ("reference", False), ("reference", True), ("compiled", False)]


def test_a_suggestion_comes_with_its_flag_and_all_trials():
    assert document()["suggestion"] is None
    shown = document(suggesting())
    told = shown["suggestion"]
    assert told["flag"] == "--keep-float fc2 'fc2 relu'" and told["layers"] == ["fc2/add"]
    assert told["words"] == ["1 layer, 9 steps -> 0.5; no smaller set does"]
    assert told["trials"] == [{"kept": [], "steps": 9.0}, {"kept": ["fc2", "fc2 relu"], "steps": 0.5}]
    (line,) = [line for line in shown["findings"] if line["section"] == "suggestion"]
    assert line["layer"] == "fc2/add" and line["text"] == told["words"][0]
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown


def test_a_report_needs_the_model_and_a_folder(tmp_path: Path):
    with pytest.raises(InputError, match="without a model"):
        tvm_qat.write_report(replace(verified(), subject=None), tmp_path / "out.html")
    with pytest.raises(InputError, match="folder does not exist"):
        tvm_qat.write_report(verified(), tmp_path / "missing" / "out.html")
    assert list(tmp_path.iterdir()) == []
