from __future__ import annotations

import numpy as np
import pytest

from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams
from tvm_qat.verification.difference import Difference, ties_of

GRID = QParams(np.array(0.5), np.array(10), "uint8")


def test_steps_are_counted_over_several_tensors():
    difference = Difference(GRID, integers=True)
    difference.add(np.uint8([10, 20, 30]), np.uint8([10, 20, 30]))
    difference.add(np.uint8([11, 20, 255]), np.uint8([10, 24, 255]), ties=np.array([True, False, True]))
    figures = difference.figures()
    assert (figures.elements, figures.differing, figures.unexplained) == (6, 2, 1)
    assert (figures.max_steps, figures.mean_steps, figures.tie_share) == (4, pytest.approx(5 / 6), 0.5)
    assert figures.max_relative is None


def test_noise_is_that_of_the_real_values():
    difference = Difference(GRID, integers=True)
    found, wanted = np.uint8([12, 30]), np.uint8([10, 32])
    difference.add(found, wanted)
    x, y = (arithmetic.dequantize(q, GRID).astype(float) for q in (found, wanted))
    figures = difference.figures()
    assert figures.sqnr_db == pytest.approx(10 * np.log10((y @ y) / ((x - y) @ (x - y))))
    assert figures.cosine == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))


def test_floats_are_compared_with_the_largest_value():
    difference = Difference(None, integers=False)
    difference.add(np.float32([1, -8]), np.float32([1, -10]))
    figures = difference.figures()
    assert figures.max_steps is None and figures.max_relative == pytest.approx(0.2)
    assert figures.mean_relative == pytest.approx(0.1)


def test_equal_tensors_have_no_noise():
    difference = Difference(None, integers=False)
    difference.add(np.float32([0, np.nan, np.inf]), np.float32([-0.0, np.nan, np.inf]))
    figures = difference.figures()
    assert (figures.differing, figures.sqnr_db, figures.tie_share, figures.noise) == (0, None, 1.0, 0.0)


def test_what_is_not_finite_on_one_side_differs():
    difference = Difference(None, integers=False)
    difference.add(np.float32([np.nan, np.inf, 1]), np.float32([1, 1, 1]))
    figures = difference.figures()
    assert figures.differing == 2 and np.isfinite(figures.max_relative or np.inf)


@pytest.mark.parametrize(
    ("formula", "real"), [("half_even", 0.75), ("half_up", 0.75), ("floor", 1.0), ("ceil", 1.0)]
)
def test_a_tie_lies_where_the_formula_changes(formula: str, real: float):
    """Steps of 0.5: 0.75 is halfway between 1 and 2 steps, 1.0 is where floor and ceil change."""
    x = np.float32([real, real + 0.1])
    exact = arithmetic.quantize(x, GRID, formula)
    for away in (-1, 1):
        moved = (exact.astype(int) + away).astype(np.uint8)
        assert not ties_of(moved, x, GRID, formula, 0.0)[1]
    both = [
        ties_of((exact.astype(int) + away).astype(np.uint8), x, GRID, formula, 0.0)[0] for away in (-1, 1)
    ]
    assert sorted(both) == [False, True]


def test_the_bound_grows_with_what_integers_rounded_before():
    x, found = np.float32([0.70]), np.uint8([12])
    assert arithmetic.quantize(x, GRID)[0] == 11
    assert not ties_of(found, x, GRID, "half_even", 0.0)[0]
    assert ties_of(found, x, GRID, "half_even", 0.06)[0]
