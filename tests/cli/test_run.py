from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Call
from tvm_qat.package import load


@pytest.fixture
def data(module: Path, tmp_path: Path) -> Path:
    path = tmp_path / "in.npz"
    np.savez(path, **load(module).random_inputs(seed=7, unknown=3))
    return path


def test_run_writes_outputs_by_the_models_names(call: Call, module: Path, data: Path, tmp_path: Path):
    assert call("run", module, "-i", data, "-o", tmp_path / "out.npz").code == 0
    package = load(module)
    expected = package.run(package.random_inputs(seed=7, unknown=3))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as written:
        assert set(written.files) == set(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(written[name], array)


def test_the_same_run_writes_the_same_bytes(call: Call, module: Path, data: Path, tmp_path: Path):
    for name in "ab":
        assert call("run", module, "-i", data, "-o", tmp_path / name).code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("mode", ["random", "zeros", "ones"])
def test_inputs_can_be_filled(call: Call, module: Path, mode: str):
    result = call("run", module, "--fill-mode", mode)
    assert result.code == 0 and load(module).outputs[0].name in result.out


def test_json_holds_outputs_and_times(call: Call, module: Path):
    result = call("run", module, "--json", "--print-time", "--repeat", 3, "--number", 2)
    document = json.loads(result.out)
    assert set(document["outputs"]) == {info.name for info in load(module).outputs}
    assert len(document["seconds"]["all"]) == 3
    assert document["seconds"]["min"] <= document["seconds"]["median"] <= document["seconds"]["max"]


def test_times_are_printed(call: Call, module: Path):
    assert "median (ms)" in call("run", module, "--print-time", "--repeat", 2).out


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)
    return path


def test_data_that_does_not_fit_is_refused(call: Call, module: Path, tmp_path: Path):
    name = load(module).inputs[0].name
    for arrays in ({}, {"nonsense": np.zeros(3)}, {name: np.zeros(3, np.float32)}):
        result = call("run", module, "-i", npz(tmp_path / "in.npz", **arrays), "-o", tmp_path / "out.npz")
        assert result.code == 4 and result.refused_in_one_line and name in result.err
        assert not (tmp_path / "out.npz").exists()


def test_pickled_data_is_refused(call: Call, module: Path, tmp_path: Path):
    name = load(module).inputs[0].name
    path = npz(tmp_path / "in.npz", **{name: np.array([{"a": 1}], dtype=object)})
    result = call("run", module, "-i", path)
    assert result.code == 4 and result.refused_in_one_line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04nonsense", b"\x93NUMPY\x01\x00", b"\x80\x04]\x94."])
def test_what_is_no_npz_is_refused(call: Call, module: Path, tmp_path: Path, content: bytes):
    path = tmp_path / "in.npz"
    path.write_bytes(content)
    result = call("run", module, "-i", path)
    assert result.code == 4 and result.refused_in_one_line and "in.npz" in result.err


def test_an_altered_package_is_refused(call: Call, module: Path, tmp_path: Path):
    raw = bytearray(module.read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "m.tar").write_bytes(raw)
    for verb in ("run", "inspect"):
        result = call(verb, tmp_path / "m.tar")
        assert result.code == 4 and result.refused_in_one_line


def test_wrong_usage_is_code_2(call: Call, module: Path):
    assert call("run", module, "--repeat", "0").code == 2
    assert call("run", module, "--device", "quantum").code == 2


def test_a_profile_names_the_models_nodes(call: Call, module: Path):
    result = call("run", module, "--json", "--profile", "--repeat", 2)
    rows = json.loads(result.out)["profile"]
    names = {layer["name"] for layer in load(module).layers}
    assert sum(row["name"] in names for row in rows) >= len(rows) / 2
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)


def test_only_the_slowest_kernels_are_shown_if_asked_for(call: Call, module: Path):
    rows = json.loads(call("run", module, "--json", "--profile", "--print-top", 2).out)["profile"]
    assert len(rows) == 2
    assert rows[0]["seconds"] >= rows[1]["seconds"]
    assert rows[0]["name"] in call("run", module, "--profile", "--print-top", 1).out
