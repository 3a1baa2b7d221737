"""A folder as `scripts/gpu_check --make` writes it, for this machine's CPU."""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from on_gpu import make

from tests.support.batched_net import attention_like

ONLY = ["dense", "gemm", "net"]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    net = tmp_path_factory.mktemp("models") / "net.onnx"
    onnx.save(attention_like(), net)
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(make, "GEMM", ((100, 64, 96),))
        make.make(folder, "cpu", ONLY, [net], folder, said.append)
    assert [line.split()[1] for line in said] == ["dense", "gemm-100x64x96", "net"]
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "made"))
