from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tvm_qat.cli import console, main

DEMO = Path(__file__).parents[2] / "tvm_qat" / "data" / "demo"
MODEL = str(DEMO / "digits_mlp.onnx")


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def refused_in_one_line(self) -> bool:
        lines = self.err.splitlines()
        return self.out == "" and len(lines) == 1 and lines[0].startswith("tvm-qat: error: ")


Call = Callable[..., Result]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run the command line in this process: exit code and what it wrote to both streams.

    A busy machine must not add lines: what is slow there is not slow by itself.
    """
    monkeypatch.setattr(console, "_PATIENCE", float("inf"))

    def run(*args: object) -> Result:
        try:
            code = main([str(arg) for arg in args])
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        captured = capfd.readouterr()
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def module(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package of the smaller demo model."""
    path = tmp_path_factory.mktemp("cli") / "module.tar"
    assert main(["compile", MODEL, "-o", str(path), "--json"]) == 0
    return path
