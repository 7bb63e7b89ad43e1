"""The alarm by simulation: how often it is false, how soon it is raised, and what it may not know.

benchmarks/alarm.py has the larger simulation, whose figures are published.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.safety.alarm import AGAINST, MOST, Evidence

RISK, ALPHA = 0.05, 0.05
TICK = 40  # rows between two looks


def rows_to_alarm(rng: np.random.Generator, rate: float, rows: int, good: int = 0) -> float:
    """Rows of a bad rate until the alarm, after so many good ones; infinity if there is none."""
    evidence = Evidence([RISK])
    for seen in range(0, good + rows, TICK):
        now = rate if seen >= good else 0.6 * RISK
        evidence.update({RISK: (TICK, int(rng.binomial(TICK, now)))})
        if evidence.wealth >= 1 / ALPHA:
            return seen + TICK - good
    return math.inf


def alarms(rate: float, rows: int, runs: int) -> int:
    return sum(
        rows_to_alarm(np.random.default_rng(run), rate, rows) < math.inf for run in range(runs)
    )


@pytest.mark.slow
def test_false_alarms_are_rarer_than_alpha_however_often_it_is_looked_at():
    # Exactly at ε, the worst case. 75 of 1,000 would be 3.6 standard deviations above α.
    assert alarms(RISK, 4_000, 1_000) < 75


@pytest.mark.parametrize(("times", "most"), [(2, 250), (3, 100), (6, 50)])
def test_it_is_raised_soon(times, most):
    # The bettor who knows the rate takes ln(20) / KL = 142, 42 and 11 rows on average.
    taken = [rows_to_alarm(np.random.default_rng(run), times * RISK, 4_000) for run in range(100)]
    assert np.mean(taken) < most


@pytest.mark.slow
def test_a_drift_after_many_good_rows_is_noticed_nearly_as_soon():
    taken = [
        rows_to_alarm(np.random.default_rng(run), 3 * RISK, 2_000, good=10_000) for run in range(30)
    ]
    assert min(taken) > 0  # none was raised before it began
    assert np.median(taken) < 250


@given(
    outcomes=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=12),
    data=st.data(),
)
def test_wealth_depends_on_the_counts_and_on_no_order(outcomes, data):
    batches = [(rows, min(rows, differ)) for rows, differ in outcomes]
    total = (sum(rows for rows, _ in batches), sum(differ for _, differ in batches))
    one, other = Evidence([RISK]), Evidence([RISK])
    one.update({RISK: total})
    for batch in data.draw(st.permutations(batches)):
        other.update({RISK: batch})
    assert one.wealth == pytest.approx(other.wealth)


def test_wealth_is_that_of_the_likelihood_ratios():
    evidence = Evidence([RISK])
    evidence.update({RISK: (50, 5)})
    kept = 1 / (1 + math.log(2))  # the first start invests the rest
    ratios = [
        share * m**5 * ((1 - m * RISK) / (1 - RISK)) ** 45
        for m, share in zip(AGAINST.multiples, AGAINST.shares, strict=True)
    ]
    assert evidence.wealth == pytest.approx(kept + (1 - kept) * sum(ratios))


def test_each_row_is_tested_against_the_risk_it_was_served_at():
    evidence = Evidence([0.01, 0.2])
    evidence.update({0.2: (400, 60)})  # 15 % is fine where 20 % is certified
    assert evidence.wealth < 1
    evidence.update({0.01: (400, 60)})
    assert evidence.wealth >= 1 / ALPHA


@pytest.mark.parametrize("risks", [[], [0.5], [0.001, 0.9]])
def test_wealth_is_a_number_whatever_comes(risks):
    evidence = Evidence(risks)
    assert evidence.wealth == 1
    for batch in ((0, 0), (10_000, 10_000), (10**6, 0), (1, 1)):
        evidence.update(dict.fromkeys(risks, batch))
        assert 0 <= evidence.wealth <= MOST
