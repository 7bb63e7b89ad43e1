"""Placing exits: none costs more than it saves, and none stands before it is safe."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.routing.choose import MOST, Costs, choose_exits, row_seconds
from skipserve.routing.propose import Observations, greedy
from skipserve.routing.stress import first_exit, stress_test

LONG, SHORT = 5e-3, 5e-6


def seen(agrees, signal=None, inside=None, count=400):
    """Rows of which a share agrees at each cut, the surest of them first."""
    place = (np.arange(count)[:, None] + 0.5) / count
    agree = place < np.asarray(agrees)[None]
    shown = np.broadcast_to(1 - place, agree.shape) if signal is None else signal
    within = np.ones(agree.shape, dtype=bool) if inside is None else inside
    return Observations(np.arange(agree.shape[1] + 1), shown.astype(np.float32), agree, within)


def costs(cuts, stage, exit_=1e-6):
    return Costs((stage,) * (cuts + 1), (exit_,) * cuts)


def test_an_exit_at_which_nobody_leaves_goes_and_a_useful_one_stays():
    kept, why = choose_exits(seen([0.0, 1.0, 1.0]), costs(3, LONG))
    assert kept == [1]
    assert "1 of 3 cuts" in why


def test_exits_stay_where_blocks_are_long_and_go_where_they_are_short():
    rising = seen(np.linspace(0.2, 0.95, 8))
    long, _ = choose_exits(rising, costs(8, LONG))
    short, _ = choose_exits(rising, costs(8, SHORT, 1e-4))
    assert len(short) < len(long)
    assert len(short) >= 1


def test_of_very_many_cuts_every_other_one_is_weighed():
    kept, _ = choose_exits(seen(np.linspace(0.01, 0.99, 60)), costs(60, LONG))
    assert 1 <= len(kept) <= MOST


def test_the_time_of_a_row_is_that_of_what_it_runs():
    # Half the rows leave at the second cut: entry, both exits there, and one stage.
    half = seen([0.0, 0.5], inside=np.array([[False, True]] * 200 + [[False, False]] * 200))
    times = Costs((1.0, 2.0, 4.0), (0.1, 0.2))
    expected = 0.5 * (1 + 0.1 + 2 + 0.2) + 0.5 * (1 + 0.1 + 2 + 0.2 + 4)
    assert row_seconds([0, 1], half, times) == pytest.approx(expected, abs=1e-3)
    # The cut at depth 0 is passed for its guard, also where nobody may leave there.
    assert row_seconds([1], half, times) == pytest.approx(expected, abs=1e-3)
    # So is any other cut with a guard, by every row that gets there.
    late = seen([0.0, 0.0])
    assert row_seconds([0], late, times, [0, 1]) == pytest.approx(7.3, abs=1e-3)
    assert row_seconds([0], late, times) == pytest.approx(7.1, abs=1e-3)


def test_exits_begin_where_corrupted_rows_are_answered_as_at_full_depth():
    ordinary = seen([1.0, 1.0, 1.0])
    wrong_at_first = seen([0.5, 0.97, 1.0], signal=np.ones((400, 3)))
    first, why = first_exit(ordinary, {"constants": wrong_at_first}, 0.01)
    assert first == 1
    assert why == "an exit after 0 blocks would disagree on 50% of rows with constants"
    fine, why = first_exit(ordinary, {"noise": seen([0.96, 1.0, 1.0])}, 0.01)
    assert (fine, why) == (0, "every hard corruption is held back or answered as at full depth")


def test_what_is_held_back_is_safe_at_any_depth():
    outside = np.zeros((400, 3), dtype=bool)
    outside[:20] = True  # nineteen in twenty are held back
    broken = seen([0.0, 0.0, 0.0], signal=np.ones((400, 3)), inside=outside)
    assert first_exit(seen([1.0, 1.0, 1.0]), {"constants": broken}, 0.01)[0] == 0
    outside[:60] = True  # 15 % pass
    assert first_exit(seen([1.0, 1.0, 1.0]), {"constants": broken}, 0.01)[0] == 2


def test_a_guard_behind_the_exit_holds_nothing_back():
    """Rows that a later guard would see leave before it, with wrong answers."""
    inside = np.ones((400, 3), dtype=bool)
    inside[:380, 1:] = False
    wrong = seen([0.0, 0.0, 0.0], signal=np.ones((400, 3)), inside=inside)
    found = stress_test("constants", True, wrong, np.float32([0.5, 0.5, 0.5]))
    assert (found.disagreement, found.run_rate, found.held_back) == (1.0, 0.0, 0.0)
    assert not found.passes
    first, why = first_exit(seen([1.0, 1.0, 1.0]), {"constants": wrong}, 0.01)
    assert first == 1
    assert why == "an exit after 0 blocks would disagree on 100% of rows with constants"


def test_if_no_depth_will_do_it_is_the_last_and_says_so():
    broken = seen([0.5, 0.5, 0.5], signal=np.ones((400, 3)))
    first, why = first_exit(seen([1.0, 1.0, 1.0]), {"constants": broken}, 0.01)
    assert first == 2
    assert why.endswith("; no depth is safe from it")


def test_stress_test_counts_what_thresholds_do():
    inside = np.ones((400, 2), dtype=bool)
    inside[100:] = [True, False]
    rows = seen([1.0, 0.0], inside=inside)
    found = stress_test("constants", True, rows, np.float32([0.5, 0.0]))
    # Half leave at the first cut. A guard behind it would have seen all but 100 of them.
    assert (found.run_rate, found.held_back) == (pytest.approx(0.5), 0.5)
    assert found.disagreement == 0
    assert found.passes
    both = stress_test("constants", True, seen([0.0, 0.0]), np.float32([0.5, 0.0]))
    assert both.disagreement == 1
    assert both.run_rate == pytest.approx(0.25)
    assert not both.passes


def test_thresholds_of_nobody_leave_everything_to_full_depth():
    nobody = seen([0.0, 0.0])
    assert np.isinf(greedy(nobody, 0.01)).all()


def test_exits_that_may_not_be_are_not_weighed():
    best_at_first = seen([1.0, 0.5, 0.6, 1.0])
    assert choose_exits(best_at_first, costs(4, LONG))[0] == [0]
    kept, why = choose_exits(best_at_first, costs(4, LONG), [2, 3])
    assert set(kept) <= {2, 3} and kept
    assert f"{len(kept)} of 2 cuts" in why
