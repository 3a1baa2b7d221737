from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tvm_qat
from tests.cli.conftest import MODEL, Call
from tvm_qat import cli
from tvm_qat.cli import console
from tvm_qat.errors import InputError, MissingDependencyError
from tvm_qat.ir import BlockBuilder

ROOT = Path(__file__).parents[2]


def python(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_the_module_is_the_command():
    done = python("-m", "tvm_qat", "inspect", MODEL, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["totals"]["macs"] > 0


def test_a_fault_of_the_input_is_one_line_on_stderr():
    done = python("-m", "tvm_qat", "inspect", "missing.onnx")
    assert (done.returncode, done.stdout) == (4, "")
    *stages, fault = done.stderr.splitlines()
    assert fault == "tvm-qat: error: missing.onnx: cannot be read: No such file or directory"
    assert all(re.fullmatch(r"tvm-qat: \w+ \(\d+%\)", stage) for stage in stages)


def test_a_reader_that_goes_away_is_no_fault():
    command = f"{sys.executable} -m tvm_qat inspect {MODEL} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


def test_verbose_shows_where_an_error_came_from(call: Call):
    result = call("inspect", "missing.onnx", "-v")
    assert result.code == 4 and "Traceback" in result.err


def test_an_interrupt_is_clean(call: Call, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(tvm_qat, "inspect", interrupted)
    result = call("inspect", MODEL)
    assert (result.code, result.out, result.err) == (130, "", "tvm-qat: interrupted\n")


def test_a_missing_package_is_code_5(call: Call, monkeypatch: pytest.MonkeyPatch):
    def missing(*_args: object, **_kwargs: object) -> None:
        raise MissingDependencyError("pip install something")

    monkeypatch.setattr(tvm_qat, "inspect", missing)
    result = call("inspect", MODEL)
    assert result.code == 5 and result.refused_in_one_line


@pytest.mark.parametrize("args", [[], ["nonsense"], ["compile"], ["run"], ["inspect"]])
def test_wrong_usage_is_code_2(call: Call, args: list[str]):
    assert call(*args).code == 2


@pytest.mark.parametrize("verb", [verb.__name__.rsplit(".", 1)[-1] for verb in cli.VERBS])
def test_every_verb_has_json_verbose_and_help(call: Call, verb: str):
    shown = call(verb, "--help")
    assert shown.code == 0
    assert "--json" in shown.out and "--verbose" in shown.out


def test_importing_the_package_loads_no_framework():
    code = "import sys, tvm_qat; print([m for m in ('tvm', 'torch', 'onnx', 'numpy') if m in sys.modules])"
    assert python("-c", code).stdout == "[]\n"


def test_compiling_loads_no_framework_but_tvm():
    frameworks = "('torch', 'tensorflow', 'onnxruntime', 'tflite')"
    code = f"import sys, tvm_qat; tvm_qat.compile; print([m for m in {frameworks} if m in sys.modules])"
    assert python("-c", code).stdout == "[]\n"


def test_public_names_exist():
    for name in tvm_qat.__all__:
        assert getattr(tvm_qat, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        tvm_qat.nonsense  # noqa: B018


def test_help_does_not_wait_for_tvm():
    code = "import sys; from tvm_qat.cli import main; assert 'tvm' not in sys.modules"
    assert python("-c", code).stderr == ""


def test_a_builder_that_dies_half_way_says_nothing(call: Call, monkeypatch: pytest.MonkeyPatch):
    def fails(*_args: object, **_kwargs: object) -> None:
        builder = BlockBuilder()
        with builder.function("main", []):
            raise InputError("the model is at fault")

    monkeypatch.setattr(tvm_qat, "inspect", fails)
    assert call("inspect", MODEL).err == "tvm-qat: error: the model is at fault\n"


def test_slow_work_names_its_stages_on_stderr(call: Call, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "_PATIENCE", 0.0)
    result = call("inspect", MODEL, "--json")
    assert result.code == 0 and json.loads(result.out)
    assert "tvm-qat: passes (10%)" in result.err
