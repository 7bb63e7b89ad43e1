"""The search for the largest rate that a service holds: its steps, and how long a trial takes."""

from __future__ import annotations

import pytest

from skipserve.loadtest.capacity import lowest_rate, search, trial_s
from skipserve.loadtest.slo import parse_slo


def test_the_search_finds_the_edge_of_what_holds():
    edge = 137.0
    for start in (1.5, 100.0, 9000.0):
        steps = search(start)
        rate, held = next(steps), []
        with pytest.raises(StopIteration):
            while True:
                held.append((rate, rate <= edge))
                rate = steps.send(rate <= edge)
        best = max(rate for rate, holds in held if holds)
        worst = min(rate for rate, holds in held if not holds)
        assert best <= edge < worst <= best * 1.06


def test_the_search_stays_above_the_lowest_rate_and_tries_that():
    tried, steps = [], search(2.0, 5.0)
    rate = next(steps)
    with pytest.raises(StopIteration):
        while True:
            tried.append(rate)
            rate = steps.send(rate <= 5.5)
    assert tried[0] == 5.0 and min(tried) == 5.0
    steps = search(40.0, 6.0)
    tried = [next(steps)]
    with pytest.raises(StopIteration):
        while True:
            tried.append(steps.send(False))
    assert tried == [40.0, 20.0, 10.0, 6.0]


@pytest.mark.parametrize(
    ("slo", "rate", "seconds"),
    [
        ("p50=15ms", 100.0, 3.0),
        ("p99=15ms", 100.0, 8.97),
        ("p99=15ms", 10.0, 60.0),
        ("p99.9=15ms", 500.0, 17.97),
        ("p99.9=15ms", 100.0, 60.0),
        # So long that hardly ever fewer than 2,995 requests come.
        ("p99.9=15ms", 40.0, 80.3),
        ("errors=0", 1.0, 60.0),
    ],
)
def test_a_trial_is_long_enough_for_its_percentiles(slo, rate, seconds):
    assert trial_s(parse_slo(slo), rate, 3.0) == pytest.approx(seconds, abs=0.1)


@pytest.mark.parametrize(
    ("slo", "lowest"), [("p50=15ms", 1.0), ("p99=15ms", 1.0), ("p99.9=15ms", 5.36)]
)
def test_the_lowest_rate_gives_a_trial_of_ten_minutes_its_samples(slo, lowest):
    objective = parse_slo(slo)
    assert lowest_rate(objective) == pytest.approx(lowest, abs=0.01)
    assert trial_s(objective, lowest_rate(objective), 3.0) <= 600.001


@pytest.mark.parametrize("holds", [True, False])
def test_the_search_ends_where_everything_or_nothing_holds(holds):
    steps = search(100.0)
    next(steps)
    with pytest.raises(StopIteration):
        for _ in range(50):
            steps.send(holds)
