from __future__ import annotations

import numpy as np
import pytest

from tvm_qat.bench import peak
from tvm_qat.ir import IRModule, tvm
from tvm_qat.package.target import host_features, parse_target

HERE = [dot for dot in peak.DOTS if dot.feature in host_features()]


@pytest.mark.parametrize("dot", HERE, ids=lambda dot: dot.name)
def test_the_loop_really_adds_all_of_its_products(dot: peak.Dot):
    module = tvm.compile(IRModule({"peak": peak.loop_of(dot)}), parse_target("native"))
    width = dot.lanes * 4
    sums = tvm.runtime.tensor(np.zeros(dot.sums * dot.lanes, "int32"))
    data, weight = (tvm.runtime.tensor(np.ones(width, dtype)) for dtype in (dot.data, "int8"))
    module["peak"](data, weight, sums)
    expected = np.repeat(np.arange(dot.sums), dot.lanes) + dot.depth * peak._ROUNDS
    np.testing.assert_array_equal(sums.numpy(), expected)


def test_the_peak_is_that_of_the_best_instruction_or_none():
    name, gops = peak.measured_peak()
    assert name == (HERE[0].name if HERE else "")
    assert (gops > 0) == bool(HERE)
