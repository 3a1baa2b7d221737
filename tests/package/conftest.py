from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny import float_module
from tvm_qat.compiler import compile
from tvm_qat.package import Package


@pytest.fixture(scope="session")
def package() -> Package:
    return compile(float_module())


@pytest.fixture(scope="session")
def saved(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "module.tar"
    package.save(path)
    return path
