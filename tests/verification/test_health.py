from __future__ import annotations

import numpy as np
import pytest

from tvm_qat.qnn import arithmetic
from tvm_qat.qparams import QParams
from tvm_qat.verification.health import BINS, Gauge, Quantizer

SIGNED = QParams(np.array(0.1), np.array(0), "int8")
UNSIGNED = QParams(np.array(0.1), np.array(0), "uint8")


def measured(real: np.ndarray, grid: QParams, kind: str = "activation") -> Quantizer:
    gauge = Gauge("node", kind, grid)
    real = np.asarray(real, np.float32)
    for part in np.array_split(real, 3):
        gauge.add(arithmetic.quantize(part, grid), part)
    return gauge.quantizer()


def spread(low: float, high: float, count: int = 1001) -> np.ndarray:
    return np.linspace(low, high, count)


def test_a_range_that_fits_has_no_warning():
    found = measured(spread(-12.7, 12.7), SIGNED)
    assert found.warnings == () and found.used_share > 0.99
    assert (found.clipped_low, found.clipped_high) == (0, 0)
    assert len(found.histogram.counts) == BINS and sum(found.histogram.counts) == 1001


def test_values_beyond_an_end_are_counted_there():
    found = measured(np.concatenate([spread(-12, 12, 900), np.full(100, 20.0)]), SIGNED)
    assert found.clipped_high == pytest.approx(0.1) and found.clipped_low == 0
    assert found.warnings == ("clips 10.0% of its values at the top: the range is too narrow",)
    assert found.histogram.above == 100 and found.histogram.below == 0


def test_what_a_range_from_zero_cuts_off_below_is_a_relu():
    found = measured(spread(-12, 25), UNSIGNED)
    assert found.clipped_low > 0.3 and found.warnings == ()


def test_a_range_that_is_hardly_used_is_too_wide():
    found = measured(spread(-2, 2), SIGNED)
    assert found.used_share == pytest.approx(40 / 255)
    assert found.warnings == ("only 16% of its range is used: the range is too wide",)


def test_a_dead_quantizer_is_named():
    assert measured(np.full(30, 0.01), SIGNED).warnings == ("dead: all values are the same integer",)


def test_dead_channels_are_counted():
    grid = QParams(np.array([0.1, 0.1, 0.1]), np.array(0), "int8", axis=0)
    q = np.zeros((3, 255), np.int8)
    q[1:] = np.arange(-127, 128)
    gauge = Gauge("node", "weight", grid)
    gauge.add(q, None)
    found = gauge.quantizer()
    assert found.channels == 3 and found.used_share == pytest.approx(2 / 3, abs=0.01)
    assert found.warnings == ("1 of 3 channels are dead: all their values are the same integer",)
    assert found.clipped_high == pytest.approx(2 / 765) and found.clipped_low == 0


def test_a_range_that_clips_and_is_half_unused_lies_in_the_wrong_place():
    values = np.concatenate([spread(1, 12, 900), np.full(100, 20.0)])
    little = "only 46% of its range is used, yet it clips 10.0% of its values at the"
    assert measured(values, SIGNED).warnings == (f"{little} top: the range lies too low",)
    assert measured(-values, SIGNED).warnings == (f"{little} bottom: the range lies too high",)


def test_channels_of_which_some_clip_and_others_are_hardly_used_are_told_apart():
    grid = QParams(np.array([0.1, 0.1, 0.1]), np.array(0), "int8", axis=0)
    real = np.stack([spread(-20, 20), spread(-0.4, 0.4), spread(-0.4, 0.4)]).astype(np.float32)
    gauge = Gauge("node", "activation", grid)
    gauge.add(arithmetic.quantize(real, grid), real)
    (warning,) = gauge.quantizer().warnings
    assert warning.startswith("only 35% of its range is used, yet it clips 6.1% of its values at the top and")
    assert warning.endswith("some channels' ranges are too wide, others too narrow")
