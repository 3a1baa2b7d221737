from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import integer_module
from tvm_qat.compiler import compile
from tvm_qat.package import load


@pytest.mark.parametrize("batch", [None, 2])
def test_each_kernel_is_timed_under_its_nodes_name(tmp_path: Path, batch: int | None):
    package = compile(integer_module(batch=batch))
    package.save(tmp_path / "m.tar")
    for one in (package, load(tmp_path / "m.tar")):
        rows = one.profile(repeat=3)
        assert "conv1" in [row.name for row in rows]
        assert all(row.seconds > 0 for row in rows)


@pytest.mark.parametrize("batch", [None, 2])
def test_a_profile_leaves_the_package_as_it_was(batch: int | None):
    package = compile(integer_module(batch=batch))
    data = package.random_inputs()
    before = package.run(data)["result"]
    package.profile(data, repeat=2)
    np.testing.assert_array_equal(package.run(data)["result"], before)
