"""Proposing: thresholds keep their rate of disagreement, and go from careful to bold."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skipserve.certification.certify import Goal, Outcome, certify
from skipserve.routing.propose import Observations, greedy, propose, propose_skips, simulate
from skipserve.routing.stopping import disagreements, first_stop

DELTA = 0.05


def observed(signal, agrees, depths=None, inside=None):
    """Observations of a router: every row inside, one block a decision."""
    count = signal.shape[1]
    blocks = np.arange(1, count + 2) if depths is None else depths
    return Observations(blocks, signal, agrees, np.ones_like(agrees) if inside is None else inside)


def synthetic(count, decisions, seed):
    """Signals [N, decisions] and agreements, likelier the larger the signal and the later."""
    rng = np.random.default_rng(seed)
    signal = rng.gamma(2.0, size=(count, 1)) + 0.3 * rng.normal(size=(count, decisions))
    chance = 1 / (1 + np.exp(-3 * signal - np.arange(decisions)))
    return signal.astype(np.float32), rng.random((count, decisions)) < chance


@pytest.mark.slow
def test_certified_thresholds_keep_their_risk_on_the_whole_pool():
    depths, risk, samples, trials = np.array([1, 2, 3, 4]), 0.02, 1_000, 400
    signal, agrees = synthetic(2_000, 3, 1)
    candidates = [greedy(observed(signal, agrees), rate) for rate in np.geomspace(5e-4, 0.15, 12)]
    signal, agrees = synthetic(4_000, 3, 2)  # drawn from with replacement: its rates are the truth
    truth = [simulate(one, observed(signal, agrees, depths))[0] for one in candidates]
    assert min(truth) < risk < max(truth)
    rng, broken, passed = np.random.default_rng(3), 0, 0
    for _ in range(trials):
        drawn = rng.integers(len(signal), size=samples)

        def run(candidate, drawn=drawn):
            wrong, depth = simulate(candidate, observed(signal[drawn], agrees[drawn], depths))
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


@settings(max_examples=examples(50))
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
    found = simulate(thresholds, observed(signal, agrees, depths))
    assert found == pytest.approx((wrong / len(signal), ran / len(signal)))


@settings(max_examples=examples(50))
@given(tables, st.sampled_from([0.0, 0.05, 0.2, 0.5]))
def test_greedy_lets_rows_leave_only_within_its_rate_and_takes_ties_along(table, rate):
    signal, agrees, _ = table
    thresholds = greedy(observed(signal, agrees), rate)
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
    assert greedy(observed(signal, agrees), 0.0).tolist() == [3.0]
    assert greedy(observed(signal, agrees), 0.34).tolist() == [1.0]
    assert greedy(observed(signal[:3], agrees[:3]), 0.32).tolist() == [3.0]


@settings(max_examples=examples(50))
@given(tables)
def test_a_bolder_rate_never_raises_the_first_threshold(table):
    signal, agrees, _ = table
    firsts = [greedy(observed(signal, agrees), rate)[0] for rate in (0.0, 0.01, 0.1, 0.3, 1.0)]
    assert firsts == sorted(firsts, reverse=True)


def test_rows_that_leave_are_not_counted_again():
    signal = np.array([[4, 1], [3, 2], [2, 3], [1, 4]], dtype=np.float32)
    agrees = np.array([[1, 0], [1, 1], [0, 1], [1, 1]], dtype=bool)
    assert greedy(observed(signal, agrees), 0.0).tolist() == [3.0, 3.0]
    assert greedy(observed(signal, ~agrees), 0.0).tolist() == [np.inf, np.inf]


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.nan, np.inf, -np.inf]), st.floats(0, 1))
def test_rows_without_a_signal_or_outside_the_guard_change_no_threshold(seed, value, rate):
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((60, 3), dtype=np.float32)
    agrees = rng.random((60, 3)) < 0.8
    more = np.concatenate([signal, np.full((9, 3), value, np.float32), signal[:9]])
    wrong = np.concatenate([agrees, np.zeros((18, 3), dtype=bool)])
    inside = np.ones((78, 3), dtype=bool)
    inside[69:] = False
    known, whole = observed(signal, agrees), observed(more, wrong, inside=inside)
    thresholds = greedy(known, rate)
    np.testing.assert_array_equal(greedy(whole, rate), thresholds)
    differ, depth = simulate(thresholds, known)
    expected = differ * 60 / 78, (depth * 60 + 4 * 18) / 78
    assert simulate(thresholds, whole) == pytest.approx(expected)
    assert simulate(np.full(3, np.inf, np.float32), whole) == (0, 4)


def test_proposed_candidates_go_from_careful_to_bold():
    known = observed(*synthetic(3_000, 4, 1))
    candidates = propose(known)
    assert 3 <= len(candidates) <= 28
    assert all(one.shape == (4,) and one.dtype == np.float32 for one in candidates)
    assert not np.isnan(candidates).any()
    wrong, depth = zip(*(simulate(one, known) for one in candidates), strict=True)
    assert list(wrong) == sorted(wrong)
    assert (np.diff(depth) < 0).all()


@pytest.mark.parametrize("risk", [0.01, 0.03])
def test_most_candidates_stand_just_below_a_risk_that_is_asked_for(risk):
    known = observed(*synthetic(20_000, 4, 1))
    near = [simulate(one, known)[0] / risk for one in propose(known, [risk])]
    assert sum(0.4 < share <= 1 for share in near) >= 5


def test_so_do_those_that_leave_stages_out():
    signal, agrees = synthetic(3_000, 4, 1)
    candidates = propose_skips(signal, agrees)
    assert 3 <= len(candidates) <= 24
    assert all(one.shape == (4,) and one.dtype == np.float32 for one in candidates)
    assert all((bold <= careful).all() for careful, bold in pairwise(candidates))


def test_decisions_that_are_left_out_are_as_if_they_never_were():
    known = observed(*synthetic(500, 4, 3), depths=np.array([0, 2, 3, 5, 8]))
    some = known.only([1, 3])
    assert some.blocks.tolist() == [2, 5, 8]
    thresholds = np.float32([np.inf, 2.0, np.inf, 1.0])
    assert simulate(thresholds, known) == simulate(thresholds[[1, 3]], some)


@given(tables)
def test_many_thresholds_stop_rows_where_each_alone_does(table):
    signal, agrees, thresholds = table
    inside = np.roll(agrees, 1, axis=0)
    candidates = np.stack([thresholds, thresholds + 1, np.full(3, np.inf, np.float32)])
    where = first_stop(signal[:, None], candidates[None], inside[:, None])
    for place, one in enumerate(candidates):
        alone = first_stop(signal, one, inside)
        np.testing.assert_array_equal(where[:, place], alone)
        np.testing.assert_array_equal(
            disagreements(agrees, where)[:, place], disagreements(agrees, alone)
        )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_stages_are_left_out_by_the_signals_of_rows_that_have_one(value):
    signal, agrees = synthetic(3_000, 4, 1)
    expected = propose_skips(signal[100:], agrees[100:])
    signal[:100, 1:] = value
    signal[:, 3] = value
    found = propose_skips(signal[100:], agrees[100:])
    with_them = propose_skips(signal, agrees)
    for one, other, whole in zip(found, with_them, expected, strict=False):
        np.testing.assert_array_equal(one[1:], other[1:])
        np.testing.assert_array_equal(one[:3], whole[:3])
        assert np.isposinf(one[3])
    assert all(not np.isnan(one).any() for one in with_them)
