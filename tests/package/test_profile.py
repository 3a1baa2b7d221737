from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny import integer_module
from tvm_qat.compiler import compile
from tvm_qat.package import KernelTime, load
from tvm_qat.package.profile import with_macs


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


@pytest.mark.parametrize("batch", [None, 2])
def test_what_multiplies_has_a_rate(tmp_path: Path, batch: int | None):
    package = compile(integer_module(batch=batch))
    (row,) = [layer for layer in package.layers if layer["macs"]]
    rated = [time for time in package.profile(repeat=3) if time.macs]
    assert [(time.name, time.macs) for time in rated] == [("conv1", row["macs"])]
    assert rated[0].gops == pytest.approx(2e-9 * row["macs"] / rated[0].seconds)
    assert rated[0].to_json()["gops"] == rated[0].gops


def test_calls_of_one_node_share_its_products():
    layers = [{"name": "cell", "functions": ["gates", "pad"], "macs": 300}]
    names = ["gates", "pad", "gates_bound1", "other"]
    rows = with_macs([KernelTime("cell", name, 1e-6) for name in names], layers)
    assert [row.macs for row in rows] == [150, 0, 150, 0]
    assert rows[1].gops is None


def test_a_benchmark_has_as_many_figures_as_asked_for_and_their_median():
    times = compile(integer_module(batch=2)).benchmark(repeat=5, number=2)
    assert len(times) == 5 and times.median == np.median(times) == times.summary()["median"]
    assert times.summary()["min"] <= times.median <= times.summary()["max"]
