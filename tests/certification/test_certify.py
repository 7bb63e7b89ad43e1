"""Certifying errs no more often than it promises, and tests candidates in order."""

from __future__ import annotations

import numpy as np
import pytest

from skipserve.certification.certify import (
    Goal,
    Outcome,
    betting_p_value,
    certify,
    lost_of,
    outcome_of,
)
from skipserve.errors import ConfigError
from skipserve.intervals import p_value

DELTA = 0.05


def places(count):
    """Candidates that carry nothing but their place in the order."""
    return [np.array([place], dtype=np.float32) for place in range(count)]


def certify_counts(counts, samples, risks):
    """Certify candidates that disagree on so many rows; also which of them were run."""
    ran = []

    def run(candidate):
        ran.append(int(candidate[0]))
        return Outcome(int(counts[ran[-1]]), 0.5, 0.0)

    goals = [Goal(risk) for risk in risks]
    verdicts, outcomes = certify(run, places(len(counts)), samples, goals, 1 - DELTA)
    assert len(outcomes) == len(ran)
    return verdicts, ran


@pytest.mark.parametrize("wrong", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_risk_and_confidence_outside_0_to_1_are_refused(wrong):
    def run(candidate):
        raise AssertionError("nothing should run")

    with pytest.raises(ConfigError, match="between 0 and 1"):
        certify(run, places(1), 1_000, [Goal(0.01), Goal(wrong)], 0.95)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        certify(run, places(1), 1_000, [Goal(0.01)], wrong)


def test_testing_stops_at_the_first_failure_and_runs_no_more():
    # Place 2 fails at 1 % of 1,000; what would pass behind it is never looked at.
    (verdict,), ran = certify_counts([0, 4, 5, 0, 0], 1_000, [0.01])
    assert (verdict.candidate, ran) == (1, [0, 1, 2])
    assert verdict.p_value == p_value(4, 1_000, 0.01)


def test_each_risk_is_tested_at_its_own_level():
    verdicts, ran = certify_counts([0, 4, 20, 35, 1_000], 1_000, [0.05, 0.01, 0.03])
    assert [verdict.goal.risk for verdict in verdicts] == [0.05, 0.01, 0.03]
    assert [verdict.candidate for verdict in verdicts] == [3, 1, 2]
    assert ran == [0, 1, 2, 3, 4]


def test_a_risk_that_failed_is_not_certified_again_by_a_later_candidate():
    verdicts, ran = certify_counts([0, 20, 0, 40], 1_000, [0.01, 0.05])
    assert [verdict.candidate for verdict in verdicts] == [0, 2]
    assert ran == [0, 1, 2, 3]


def test_all_candidates_may_pass():
    (verdict,), ran = certify_counts([0, 0, 0], 1_000, [0.01])
    assert (verdict.candidate, ran) == (2, [0, 1, 2])


def test_too_few_samples_certify_nothing():
    (verdict,), ran = certify_counts([0, 0], 298, [0.01])
    assert verdict.candidate is None
    assert verdict.p_value > DELTA
    assert ran == [0]


def test_an_outcome_counts_disagreements_blocks_and_rows_held_back():
    outcome = outcome_of(
        np.array([False, False, True, False]),
        np.array([1, 2, 4, 1]),
        np.array([False, False, True, False]),
        4,
    )
    assert outcome == Outcome(disagreements=1, run_rate=0.5, held_back=0.25)


def test_accuracy_lost_counts_what_only_one_of_the_two_got_right():
    full, routed, truth = np.array([0, 1, 2, 0]), np.array([0, 0, 2, 1]), np.array([0, 1, 1, 1])
    assert lost_of(full == truth, routed == truth).tolist() == [0, 1, 0, -1]


def test_classes_are_counted_one_by_one():
    full, differs = np.array([0, 1, 1, 0]), np.array([False, False, True, False])
    by_class = [full == 0, full == 1]
    outcome = outcome_of(differs, np.full(4, 2), differs, 4, by_class=by_class)
    assert outcome.by_class == ((0, 2), (1, 2))


def losses(rng, count, lost, gained):
    return rng.choice([1, -1, 0], p=[lost, gained, 1 - lost - gained], size=count).astype(np.int8)


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.0), (0.03, 0.01), (0.27, 0.25)])
def test_betting_is_wrong_no_more_often_than_delta_at_the_boundary(lost, gained):
    rng, trials = np.random.default_rng(0), 1_000
    values = [betting_p_value(losses(rng, 1_000, lost, gained), 0.02, 0.95) for _ in range(trials)]
    share = np.mean(np.array(values) <= DELTA)
    assert share <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / trials)


def test_betting_certifies_what_is_well_below_the_risk_and_nothing_above():
    rng = np.random.default_rng(0)
    assert betting_p_value(losses(rng, 5_000, 0.01, 0.01), 0.02, 0.95) <= DELTA
    assert betting_p_value(losses(rng, 5_000, 0.005, 0.0), 0.02, 0.95) <= DELTA
    assert betting_p_value(losses(rng, 5_000, 0.1, 0.0), 0.02, 0.95) > DELTA
    assert betting_p_value(np.zeros(0, dtype=np.int8), 0.02, 0.95) == 1.0
    assert betting_p_value(np.ones(50, dtype=np.int8), 0.02, 0.95) == 1.0


def test_betting_is_not_fooled_by_a_file_that_is_sorted_by_class():
    # 5 % are lost, all of them in the class that stands last: before it a gambler would have won.
    by_class = np.zeros(10_000, np.int8)
    by_class[5_000::10] = 1
    assert betting_p_value(by_class, 0.01, 0.95) > DELTA
    assert betting_p_value(by_class[::-1], 0.01, 0.95) > DELTA
    # The bound is still earned where it holds, however the file is sorted.
    by_class = np.sort(losses(np.random.default_rng(0), 10_000, 0.002, 0.0))
    assert betting_p_value(by_class, 0.01, 0.95) <= DELTA


def test_both_measures_are_certified_on_one_run_of_each_candidate():
    # Half of what disagrees was wrong at full depth, so accuracy is lost more slowly.
    rng, ran = np.random.default_rng(0), []

    def run(candidate):
        ran.append(int(candidate[0]))
        rate = [0.004, 0.016, 0.2][ran[-1]]
        lost = losses(rng, 5_000, rate / 2, rate / 2 - 0.001)
        return Outcome(int((lost != 0).sum()), 0.5, 0.0, lost)

    goals = [Goal(0.01), Goal(0.01, "accuracy_lost")]
    verdicts, _ = certify(run, places(3), 5_000, goals, 1 - DELTA)
    assert [verdict.goal for verdict in verdicts] == goals
    assert [verdict.candidate for verdict in verdicts] == [0, 1]
    assert ran == [0, 1, 2]


@pytest.mark.parametrize(
    "rates",
    [
        np.geomspace(0.004, 0.06, 12),  # from well below to well above
        np.full(1, 0.0201),  # the worst case: barely too bold
        np.array([0.0201, 0.0202, 0.0203, 0.03]),  # nothing is good
        np.array([0.03, 0.001, 0.03, 0.001]),  # not even in order
    ],
)
def test_a_bold_candidate_is_certified_no_more_often_than_delta(rates):
    trials, samples, risk = 2_000, 1_000, 0.02
    counts = np.random.default_rng(0).binomial(samples, rates, (trials, len(rates)))
    broken = 0
    for row in counts:
        (verdict,), _ = certify_counts(row, samples, [risk])
        broken += verdict.candidate is not None and rates[verdict.candidate] > risk
    assert broken / trials <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / trials)
