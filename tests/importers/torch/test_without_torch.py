"""What a user is told who has no torch installed; runs everywhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from tvm_qat.errors import MissingDependencyError
from tvm_qat.importers import import_model, options


def test_the_pip_command_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt2"
    path.write_bytes(b"PK\x03\x04")
    monkeypatch.setattr(options, "find_spec", lambda _name: None)
    with pytest.raises(MissingDependencyError, match=r"model.pt2: .*torch.*pip install 'tvm-qat\[torch\]'"):
        import_model(path)
