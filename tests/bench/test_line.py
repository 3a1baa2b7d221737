from __future__ import annotations

import numpy as np
import pytest

from tvm_qat.bench.line import Line, fit


def test_points_on_a_line_give_that_line():
    line = fit([(work, 2e-9 * work + 1e-3) for work in (1e6, 5e6, 2e8, 1e9)])
    assert line is not None
    assert (line.per_unit, line.once) == pytest.approx((2e-9, 1e-3))


def test_small_models_count_as_much_as_large_ones():
    line = fit([(1e6, 1.0), (2e6, 2.0), (1e9, 1000.0), (2e9, 2400.0)])
    assert line is not None
    assert abs(line.deviation(1e6, 1.0)) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_no_line_nearby_has_a_smaller_largest_deviation(seed):
    generator = np.random.default_rng(seed)
    work = generator.uniform(1e6, 1e9, 12)
    points = list(zip(work, (2e-9 * work + 1e-4) * generator.uniform(0.8, 1.25, 12), strict=True))

    def worst(line: Line) -> float:
        return max(abs(line.deviation(*point)) for point in points)

    best = fit(points)
    assert best is not None
    for per_unit in np.linspace(0.9, 1.1, 41):
        for once in np.linspace(-1e-4, 1e-4, 41):
            assert worst(Line(best.per_unit * per_unit, best.once + once)) >= worst(best) * (1 - 1e-9)


def test_points_of_the_same_work_have_the_line_between_them():
    line = fit([(1.0, 0.9), (1.0, 1.1), (2.0, 2.0), (4.0, 4.0)])
    assert line is not None
    assert line.deviation(1.0, 1.1) == pytest.approx(-line.deviation(1.0, 0.9), abs=0.02)


def test_a_deviation_is_a_share_of_the_line():
    line = fit([(1.0, 1.0), (2.0, 2.0), (4.0, 4.0)])
    assert line is not None
    assert line.deviation(3.0, 3.3) == pytest.approx(0.1)


def test_two_points_or_one_amount_of_work_make_no_line():
    assert fit([(1.0, 1.0), (2.0, 2.0)]) is None
    assert fit([(3.0, 1.0), (3.0, 2.0), (3.0, 4.0)]) is None
