"""Certifying holds what it promises, and proposing is careful before it is bold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from skipserve.certification.certify import (
    Goal,
    Outcome,
    betting_p_value,
    certify,
    lost_of,
    outcome_of,
    p_value,
    samples_needed,
)
from skipserve.errors import ConfigError
from skipserve.routing.propose import Observations, greedy, propose, propose_skips, simulate

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


@pytest.mark.parametrize(("samples", "most"), [(299, 0), (1_000, 4), (5_000, 38), (10_000, 83)])
def test_p_value_allows_the_known_number_of_disagreements(samples, most):
    assert p_value(most, samples, 0.01) <= DELTA < p_value(most + 1, samples, 0.01)


@pytest.mark.parametrize("samples", [1, 2, 7, 299, 10_000, 200_000])
@pytest.mark.parametrize("risk", [5e-324, 1e-9, 0.005, 0.01, 0.3, 0.5, 0.99, 1 - 1e-12])
def test_p_value_is_the_binomial_of_scipy(samples, risk):
    middle = int(samples * risk)
    counts = {0, 1, 2, middle // 2, middle, middle + 1, 2 * middle, samples // 2, samples - 1}
    for count in {min(count, samples) for count in counts} | {-1, samples}:
        expected = binom.cdf(count, samples, risk)
        assert p_value(count, samples, risk) == pytest.approx(expected, rel=1e-8, abs=1e-300)


@given(st.data())
def test_p_value_grows_with_the_disagreements_and_falls_with_the_risk(data):
    samples = data.draw(st.integers(1, 3_000))
    count = data.draw(st.integers(0, samples))
    low, high = sorted(
        data.draw(st.lists(st.floats(1e-6, 1 - 1e-6), min_size=2, max_size=2, unique=True))
    )
    found = p_value(count, samples, high)
    assert found == pytest.approx(binom.cdf(count, samples, high), rel=1e-9, abs=1e-300)
    assert 0 <= found <= p_value(count, samples, low) * (1 + 1e-9) <= 1 + 1e-9
    assert p_value(count - 1, samples, high) <= found


def test_samples_needed_is_the_fewest_that_can_pass_without_a_disagreement():
    assert samples_needed(0.01, 0.95) == 299
    for risk in (0.005, 0.01, 0.02, 0.05):
        needed = samples_needed(risk, 0.95)
        assert p_value(0, needed, risk) <= DELTA < p_value(0, needed - 1, risk)


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


def seen(signal, agrees, depths=None, inside=None):
    """What a router would see; every row inside, one block a decision."""
    count = signal.shape[1]
    blocks = np.arange(1, count + 2) if depths is None else depths
    return Observations(blocks, signal, agrees, np.ones_like(agrees) if inside is None else inside)


def synthetic(count, decisions, seed):
    """Signals [N, decisions] and agreements, likelier the larger the signal and the later."""
    rng = np.random.default_rng(seed)
    signal = rng.gamma(2.0, size=(count, 1)) + 0.3 * rng.normal(size=(count, decisions))
    chance = 1 / (1 + np.exp(-3 * signal - np.arange(decisions)))
    return signal.astype(np.float32), rng.random((count, decisions)) < chance


def test_certified_thresholds_keep_their_risk_on_the_whole_pool():
    depths, risk, samples, trials = np.array([1, 2, 3, 4]), 0.02, 1_000, 400
    signal, agrees = synthetic(2_000, 3, 1)
    candidates = [greedy(seen(signal, agrees), rate) for rate in np.geomspace(5e-4, 0.15, 12)]
    signal, agrees = synthetic(4_000, 3, 2)  # drawn from with replacement: its rates are the truth
    truth = [simulate(one, seen(signal, agrees, depths))[0] for one in candidates]
    assert min(truth) < risk < max(truth)
    rng, broken, passed = np.random.default_rng(3), 0, 0
    for _ in range(trials):
        drawn = rng.integers(len(signal), size=samples)

        def run(candidate, drawn=drawn):
            wrong, depth = simulate(candidate, seen(signal[drawn], agrees[drawn], depths))
            return Outcome(round(wrong * samples), depth / 4, 0.0)

        (verdict,), _ = certify(run, candidates, samples, [Goal(risk)], 1 - DELTA)
        passed += verdict.candidate is not None
        broken += verdict.candidate is not None and truth[verdict.candidate] > risk
    assert passed > trials / 2
    assert broken / trials <= DELTA + 3 * np.sqrt(DELTA * (1 - DELTA) / trials)


# Few distinct values, so that there are ties.
tables = st.integers(1, 30).flatmap(
    lambda rows: st.tuples(
        arrays(np.float32, (rows, 3), elements=st.integers(0, 4).map(float)),
        arrays(np.bool_, (rows, 3)),
        arrays(np.float32, 3, elements=st.sampled_from([-1.0, 0.0, 2.0, 3.5, float("inf")])),
    )
)


@settings(max_examples=50)
@given(tables)
def test_simulate_is_the_loop_it_stands_for(table):
    signal, agrees, thresholds = table
    depths = np.array([1, 2, 4, 7])
    wrong, ran = 0, 0
    for row, right in zip(signal, agrees, strict=True):
        for i in range(3):
            if not row[i] < thresholds[i]:
                wrong += not right[i]
                ran += depths[i]
                break
        else:
            ran += depths[3]
    found = simulate(thresholds, seen(signal, agrees, depths))
    assert found == pytest.approx((wrong / len(signal), ran / len(signal)))


@settings(max_examples=50)
@given(tables, st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_greedy_lets_rows_leave_only_within_its_rate_and_takes_ties_along(table, rate):
    signal, agrees, _ = table
    thresholds = greedy(seen(signal, agrees), rate)
    assert thresholds.shape == (3,)
    assert thresholds.dtype == np.float32
    stays = np.ones(len(signal), dtype=bool)
    for i, threshold in enumerate(thresholds):
        leaves = stays & (signal[:, i] >= threshold)
        if leaves.any():
            assert (~agrees[leaves, i]).mean() <= rate
            assert threshold in signal[stays, i]  # as low as a value, so its ties go with it
        for lower in np.unique(signal[stays, i][signal[stays, i] < threshold]):
            tried = stays & (signal[:, i] >= lower)
            assert (~agrees[tried, i]).mean() > rate
        stays &= ~leaves


def test_tied_rows_leave_together_or_not_at_all():
    signal = np.array([[3.0], [2.0], [2.0], [1.0]], dtype=np.float32)
    agrees = np.array([[True], [True], [False], [True]])
    assert greedy(seen(signal, agrees), 0.0).tolist() == [3.0]
    assert greedy(seen(signal, agrees), 0.34).tolist() == [1.0]
    assert greedy(seen(signal[:3], agrees[:3]), 0.32).tolist() == [3.0]


@settings(max_examples=50)
@given(tables)
def test_a_bolder_rate_never_raises_the_first_threshold(table):
    signal, agrees, _ = table
    firsts = [greedy(seen(signal, agrees), rate)[0] for rate in (0.0, 0.01, 0.1, 0.3, 1.0)]
    assert firsts == sorted(firsts, reverse=True)


def test_rows_that_leave_are_not_counted_again():
    signal = np.array([[4, 1], [3, 2], [2, 3], [1, 4]], dtype=np.float32)
    agrees = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    assert greedy(seen(signal, agrees), 0.0).tolist() == [3.0, 3.0]
    assert greedy(seen(signal, ~agrees), 0.0).tolist() == [np.inf, np.inf]


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]), st.floats(0, 1))
def test_rows_without_a_signal_or_outside_the_guard_change_no_threshold(seed, value, rate):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((60, 3), dtype=np.float32)
    agrees = rng.random((60, 3)) < 0.8
    more = np.concatenate([signal, np.full((9, 3), value, np.float32), signal[:9]])
    wrong = np.concatenate([agrees, np.zeros((18, 3), dtype=bool)])
    inside = np.ones((78, 3), dtype=bool)
    inside[69:] = False
    known, whole = seen(signal, agrees), seen(more, wrong, inside=inside)
    thresholds = greedy(known, rate)
    np.testing.assert_array_equal(greedy(whole, rate), thresholds)
    differ, depth = simulate(thresholds, known)
    expected = differ * 60 / 78, (depth * 60 + 4 * 18) / 78
    assert simulate(thresholds, whole) == pytest.approx(expected)
    assert simulate(np.full(3, np.inf, np.float32), whole) == (0, 4)


def test_proposed_candidates_go_from_careful_to_bold():
    known = seen(*synthetic(3_000, 4, 1))
    candidates = propose(known)
    assert 3 <= len(candidates) <= 28
    assert all(one.shape == (4,) and one.dtype == np.float32 for one in candidates)
    assert not np.isnan(candidates).any()
    wrong, depth = zip(*(simulate(one, known) for one in candidates), strict=True)
    assert list(wrong) == sorted(wrong)
    assert (np.diff(depth) < 0).all()


@pytest.mark.parametrize("risk", [0.01, 0.03])
def test_most_candidates_stand_just_below_a_risk_that_is_asked_for(risk):
    known = seen(*synthetic(20_000, 4, 1))
    near = [simulate(one, known)[0] / risk for one in propose(known, [risk])]
    assert sum(0.4 < share <= 1 for share in near) >= 5


def test_so_do_those_that_leave_stages_out():
    signal, agrees = synthetic(3_000, 4, 1)
    candidates = propose_skips(signal, agrees)
    assert 3 <= len(candidates) <= 24
    assert all(one.shape == (4,) and one.dtype == np.float32 for one in candidates)
    assert all((bold <= careful).all() for careful, bold in pairwise(candidates))


def test_decisions_that_are_left_out_are_as_if_they_never_were():
    known = seen(*synthetic(500, 4, 3), depths=np.array([0, 2, 3, 5, 8]))
    some = known.only([1, 3])
    assert some.blocks.tolist() == [2, 5, 8]
    thresholds = np.float32([np.inf, 2.0, np.inf, 1.0])
    assert simulate(thresholds, known) == simulate(thresholds[[1, 3]], some)
