from __future__ import annotations

import pytest

from tvm_qat.bench.line import fit


def test_points_on_a_line_give_that_line():
    line = fit([(work, 2e-9 * work + 1e-3) for work in (1e6, 5e6, 2e8, 1e9)])
    assert line is not None
    assert (line.per_unit, line.once) == pytest.approx((2e-9, 1e-3))


def test_small_models_count_as_much_as_large_ones():
    line = fit([(1e6, 1.0), (2e6, 2.0), (1e9, 1000.0), (2e9, 2400.0)])
    assert line is not None
    assert abs(line.deviation(1e6, 1.0)) < 0.05


def test_a_deviation_is_a_share_of_the_line():
    line = fit([(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)])
    assert line is not None
    assert line.deviation(3.0, 3.3) == pytest.approx(0.1)


def test_two_points_make_no_line():
    assert fit([(1.0, 1.0), (2.0, 2.0)]) is None
