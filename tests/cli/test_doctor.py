from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests.cli.conftest import Call
from tvm_qat import doctor


def test_a_sound_installation_passes(call: Call):
    result = call("doctor", "--json")
    document = json.loads(result.out)
    assert result.code == 0 and document["ok"]
    found = {finding["name"]: finding for finding in document["findings"]}
    assert {
        "python",
        "apache-tvm",
        "apache-tvm-ffi",
        "LLVM",
        "processor",
        "linker",
        "threads",
        "nvcc",
    } <= set(found)
    assert found["self-test"]["state"] == "ok"


def test_findings_are_a_table(call: Call):
    result = call("doctor")
    assert result.code == 0
    assert "self-test" in result.out


@pytest.mark.parametrize(
    ("name", "version"),
    [("apache-tvm-ffi", "0.1.15.post2"), ("apache-tvm", "0.26.0"), ("apache-tvm-ffi", "0.2.0")],
)
def test_versions_that_do_not_work_are_wrong(monkeypatch: pytest.MonkeyPatch, name: str, version: str):
    monkeypatch.setattr(doctor.metadata, "version", lambda _name: version)
    finding = doctor._needed(name)
    assert finding.state == "wrong" and "pip install" in finding.remedy


def test_a_needed_package_that_is_missing_is_wrong(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    assert doctor._needed("onnx").state == "wrong"


def test_nothing_is_compiled_with_a_version_that_crashes(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda _name: "0.1.15")
    result = call("doctor", "--json")
    names = [finding["name"] for finding in json.loads(result.out)["findings"]]
    assert result.code == 1 and "self-test" not in names


def test_an_optional_package_comes_with_its_pip_command(monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> str:
        raise doctor.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(doctor.metadata, "version", missing)
    finding = doctor._optional("onnxruntime", "comparing")
    assert finding.state == "missing" and "pip install onnxruntime" in finding.remedy


def test_a_missing_linker_is_no_fault(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "find_linker", lambda: None)
    assert doctor._linker().state == "missing"


def test_nvcc_and_a_gpu_are_worth_knowing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NVCC", "/nowhere/nvcc -ccbin g++")
    monkeypatch.setattr(doctor, "find_device", lambda: None)
    assert [doctor._nvcc().state, doctor._gpu().state] == ["missing", "missing"]
    monkeypatch.setenv("NVCC", "sh -c nvcc")
    gpu = SimpleNamespace(device_name="NVIDIA H200", compute_version="9.0")
    monkeypatch.setattr(doctor, "find_device", lambda: gpu)
    assert doctor._nvcc() == doctor.Finding("nvcc", "sh -c nvcc")
    assert doctor._gpu() == doctor.Finding("NVIDIA GPU", "NVIDIA H200, compute capability 9.0")
