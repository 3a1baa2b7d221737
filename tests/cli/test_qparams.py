from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.cli.conftest import MODEL, Call
from tvm_qat.package import load


def test_qparams_are_printed_or_written(call: Call, tmp_path: Path):
    printed = json.loads(call("qparams", MODEL).out)
    assert printed["version"] == "2.0.0"
    result = call("qparams", MODEL, "-o", tmp_path / "e.json")
    assert result.out == f"{tmp_path / 'e.json'}: the parameters of {len(printed['encodings'])} tensors\n"
    assert json.loads((tmp_path / "e.json").read_text()) == printed


def test_the_float_model_with_them_compiles_to_the_same_bits(call: Call, tmp_path: Path):
    paths = {name: tmp_path / name for name in ("e.json", "float.onnx", "a.tar", "b.tar")}
    flags = ["-o", paths["e.json"], "--float-model", paths["float.onnx"]]
    assert call("qparams", MODEL, *flags).code == 0
    assert call("compile", MODEL, "-o", paths["a.tar"]).code == 0
    onto = ["--encodings", paths["e.json"]]
    assert call("compile", paths["float.onnx"], "-o", paths["b.tar"], *onto).code == 0
    one, other = load(paths["a.tar"]), load(paths["b.tar"])
    data = one.random_inputs(unknown=3)
    for name, value in one.run(data).items():
        np.testing.assert_array_equal(other.run(data)[name], value)


def test_encodings_that_do_not_fit_are_refused_in_one_line(call: Call, tmp_path: Path):
    path = tmp_path / "e.encodings"
    path.write_text(
        '{"version": "2.0.0", "encodings": [{"name": "imag", "output_dtype": "int8", "y_scale": 1}]}'
    )
    result = call("inspect", MODEL, "--encodings", path)
    assert result.code == 4 and result.refused_in_one_line
    assert "e.encodings: the model has no tensor 'imag' (closest: 'image'" in result.err


def test_nothing_is_written_where_the_folder_is_missing(call: Call, tmp_path: Path):
    result = call("qparams", MODEL, "-o", tmp_path / "no" / "e.json")
    assert result.code == 4 and result.refused_in_one_line
