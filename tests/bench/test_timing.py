from __future__ import annotations

import pytest

from tvm_qat.bench.timing import Turn, figures, ratio


def turn(*wall: float, lost: float = 0.0) -> Turn:
    """Runs that took `wall` seconds, `lost` of them while another process held the core."""
    return Turn(wall, tuple(seconds - lost for seconds in wall), (lost,) * len(wall))


def test_runs_that_waited_for_the_core_are_dropped_and_counted():
    mixed = Turn((0.010, 0.014, 0.010), (0.010, 0.010, 0.0099), (0.0, 0.004, 0.0001))
    found = figures([mixed])
    assert (found.kept, found.dropped) == (2, 1)
    assert found.median == 0.010


def test_an_interrupt_of_one_percent_does_not_count_as_other_work():
    assert figures([turn(0.010, lost=0.0001)]).dropped == 0


def test_tiny_runs_are_not_dropped_for_the_time_that_clocks_take():
    assert figures([turn(20e-6, lost=4e-6)]).dropped == 0


def test_cpu_time_is_there_even_if_every_run_was_disturbed():
    found = figures([turn(0.02, 0.02, lost=0.01)])
    assert (found.median, found.p10, found.kept, found.dropped) == (None, None, 0, 2)
    assert found.cpu == pytest.approx(0.01)


def test_percentiles_leave_a_tenth_on_either_side():
    found = figures([turn(*(0.001 * i for i in range(1, 21)))])
    assert (found.p10, found.p90) == pytest.approx((0.003, 0.018))


def test_a_ratio_is_formed_within_rounds_so_that_a_slow_minute_cancels():
    ours = [turn(1.0), turn(1.0), turn(4.0), turn(4.0), turn(4.0)]
    theirs = [turn(2.0), turn(2.0), turn(8.0), turn(8.0), turn(8.0)]
    found = ratio(ours, theirs)
    assert (found.median, found.low, found.high, found.rounds) == (0.5, 0.5, 0.5, 5)


def test_one_odd_round_moves_the_quartile_and_not_the_ratio():
    ours = [turn(1.0), turn(1.0), turn(1.0), turn(3.0)]
    found = ratio(ours, [turn(2.0)] * 4)
    assert found.median == 0.5
    assert found.high is not None and found.high > 0.5


def test_rounds_without_a_clean_run_of_both_do_not_count():
    ours = [turn(1.0), turn(9.0, lost=5.0), turn(1.0)]
    theirs = [turn(2.0), turn(2.0), turn(9.0, lost=7.0)]
    found = ratio(ours, theirs)
    assert (found.median, found.rounds) == (0.5, 1)


def test_with_no_clean_round_only_the_ratio_of_cpu_times_is_left():
    found = ratio([turn(2.0, lost=1.0)], [turn(6.0, lost=2.0)])
    assert found.median is None and found.rounds == 0
    assert found.cpu == pytest.approx(0.25)


def test_turns_come_from_what_a_worker_says():
    said = {"wall": [0.5], "cpu": [0.4], "lost": [0.1]}
    assert Turn.from_json(said) == Turn((0.5,), (0.4,), (0.1,))
