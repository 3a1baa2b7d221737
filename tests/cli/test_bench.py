from __future__ import annotations

import json
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.cli.conftest import DEMO, MODEL, Call
from tvm_qat.bench import runners

CNN = str(DEMO / "digits_cnn.onnx")
QUICK = ("--rounds", "2")


def test_a_model_is_measured_beside_onnxruntime(call: Call, tmp_path: Path):
    files = tmp_path / "b.json", tmp_path / "b.svg"
    result = call("bench", CNN, *QUICK, "--per-layer", "--json", "-o", files[0], "--plot", files[1])
    assert result.code == 0
    document = json.loads(result.out)
    assert document == json.loads(files[0].read_text())
    assert ElementTree.fromstring(files[1].read_text()).tag.endswith("svg")
    assert set(document) == {
        "schema", "model", "machine", "compile_seconds", "package_bytes", "weight_bytes", "macs",
        "runtimes", "profile",
    }  # fmt: skip
    ours, theirs = document["runtimes"]
    assert (ours["label"], theirs["label"]) == ("tvm_qat", "onnxruntime")
    assert ours["ratio"] is None
    assert set(theirs["ratio"]) == {"median", "low", "high", "rounds", "cpu"}
    assert theirs["agreement"] > 0.99
    for row in (ours, theirs):
        assert row["figures"]["kept"] + row["figures"]["dropped"] > 0
        assert row["memory"] > row["base"] > 0
    layers = document["profile"]["layers"]
    assert "stem/conv" in [layer["name"] for layer in layers]
    assert document["profile"]["macs"] == document["macs"]


def test_the_table_names_every_runtime_and_what_it_rests_on(call: Call):
    shown = call("bench", MODEL, *QUICK, "--input-shapes", "image:[4,1,16,16]").out
    words = ("tvm_qat", "onnxruntime", "ours is", "quartiles", "dropped", "compiled in", "package", "load")
    assert [word for word in words if word not in shown] == []


def test_a_missing_runtime_is_named_with_its_pip_command(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(runners, "find_spec", lambda module: None if module == "openvino" else object())
    result = call("bench", CNN, "--against", "onnxruntime,openvino")
    assert result.code == 5 and result.refused_in_one_line
    assert "pip install openvino" in result.err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--against", "tensorrt"), "'tensorrt' is not known; choose from"),
        (("--against", "onnxruntime,onnxruntime"), "named twice"),
        (("--against", "litert"), "--tflite"),
        (("--against", "tvm_qat"), "measured anyway"),
        (("--float", "no.onnx"), "no.onnx: cannot be read"),
        (("--plot", "plot.png"), "written as SVG"),
        (("--output", "no/such/folder.json"), "create the folder"),
        (("--threads", "9999"), "9999 threads asked for"),
    ],
)
def test_what_cannot_be_measured_is_refused(call: Call, arguments: tuple[str, ...], reason: str):
    result = call("bench", MODEL, *arguments)
    assert result.code == 4 and result.refused_in_one_line
    assert reason in result.err


def test_inputs_that_do_not_fit_are_refused(call: Call, tmp_path: Path):
    np.savez(tmp_path / "x.npz", other=np.zeros(3))
    result = call("bench", MODEL, "-i", tmp_path / "x.npz")
    assert result.code == 4 and result.refused_in_one_line
    assert "no input 'other'" in result.err


def test_a_file_that_is_no_model_is_refused(call: Call):
    result = call("bench", sys.executable)
    assert result.code == 4 and result.refused_in_one_line
