"""The simulation that docs/guarantees.md quotes computes what the package computes, row by row."""

from __future__ import annotations

import sys
from pathlib import Path

import needed_rows
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from earning_drift import Plan, serve
from earning_streams import (
    Alarms,
    Rows,
    earned_after,
    ever_crosses,
    rows_needed,
    rows_to_earn,
)

from skipserve.earning import wealth
from skipserve.safety.alarm import Evidence

RISK, LEVEL = 0.05, 0.05


def test_the_table_of_rows_is_the_packages():
    table = rows_needed(RISK, LEVEL, 30)
    assert table.tolist() == [needed_rows.rows_needed(RISK, LEVEL, d) for d in range(31)]


def test_other_bets_need_other_rows():
    rate = 0.3 * RISK

    def one_bet(rows, differ, risk):
        agree = np.log((1 - rate) / (1 - risk))
        return differ * np.log(rate / risk) + (rows - differ) * agree

    each = np.log((1 - rate) / (1 - RISK))
    first, *_ = rows_needed(RISK, LEVEL, 3, one_bet)
    assert first == np.ceil(np.log(1 / LEVEL) / each)
    found = rows_to_earn(np.random.default_rng(0), 1e-12, RISK, LEVEL, 1_000, 5, one_bet)
    assert found.tolist() == [first] * 5


def test_streams_by_disagreements_are_streams_by_rows():
    rng, rows, streams = np.random.default_rng(0), 1_000, 500
    differ = (rng.random((streams, rows)) < 0.6 * RISK).cumsum(axis=1)
    reached = wealth.log_wealth(np.arange(1, rows + 1), differ, RISK) >= np.log(1 / LEVEL)
    expected = np.where(reached.any(axis=1), reached.argmax(axis=1) + 1, np.inf)
    found = rows_to_earn(rng, 0.6 * RISK, RISK, LEVEL, rows, streams)
    for most in (200, 500, 1_000):
        share, other = (expected <= most).mean(), (found <= most).mean()
        # Six standard deviations of the difference of two shares, at most.
        assert share == pytest.approx(other, abs=6 * np.sqrt(0.5 / streams))
    crossed = ever_crosses(rng, 0.6 * RISK, RISK, LEVEL * np.pi**2 / 6, rows, rows, streams)
    assert crossed.mean() == pytest.approx((expected < np.inf).mean(), abs=0.1)


def test_what_is_earned_is_a_prefix_of_the_order():
    rows = Rows.nested(np.array([0.3, 0.6, 3.0]) * RISK, np.array([0.5, 0.4, 0.3]))
    assert rows.risks == pytest.approx([0.3 * RISK, 0.6 * RISK, 3 * RISK])
    earned, differ = earned_after(np.random.default_rng(1), rows, RISK, LEVEL, 3_000, 500)
    assert set(earned.tolist()) <= {1, 2}  # 3 ε is not earned even once in 500
    assert (np.diff(differ, axis=1) >= 0).all()
    assert differ.mean(axis=0) == pytest.approx(3_000 * rows.risks, rel=0.05)


def test_many_alarms_are_many_times_the_one():
    rng, streams = np.random.default_rng(0), 5
    alarms, single = Alarms(RISK, streams), [Evidence([RISK]) for _ in range(streams)]
    for look in range(300):
        rows = np.where(rng.random(streams) < 0.8, 10, 0)
        differ = rng.binomial(rows, RISK if look < 200 else 2 * RISK)
        if look == 100:
            alarms.forget(np.arange(streams) == 2)
            single[2] = Evidence([RISK])
        found = alarms.update(rows, differ)
        for one, n, d in zip(single, rows.tolist(), differ.tolist(), strict=True):
            one.update({RISK: (n, d)})
        assert np.minimum(found, 1e12) == pytest.approx([one.wealth for one in single], rel=1e-9)


def test_a_drift_is_withdrawn_and_what_still_holds_is_earned_again():
    plan = Plan(np.array([0.02, 0.6]) * RISK, risk=RISK, share=0.1, epoch_rows=2_000)
    rows = 100_000
    found = serve(
        np.random.default_rng(0), plan, lambda t: np.where(t < rows / 2, 1.0, 5.0), rows, 50
    )
    assert (found.withdrawals >= 1).mean() > 0.95
    assert found.never_again == 0
    assert len(found.earned_again) == found.withdrawals.sum()
    # Half of it at 0.6 ε, then 3 ε until the alarm, then the careful one at 0.1 ε.
    assert 0.3 * RISK < found.disagrees.mean() < 0.8 * RISK
    calm = serve(np.random.default_rng(0), plan, np.ones_like, rows, 50)
    assert calm.withdrawals.sum() <= 8
    assert calm.disagrees.mean() < 0.6 * RISK
