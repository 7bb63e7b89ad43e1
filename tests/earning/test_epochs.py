"""Epochs: what is earned, what stays in force, what is withdrawn; and that Ville's bound holds."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from needed_rows import rows_needed

from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, reset, withdraw
from skipserve.earning.epochs import in_force as places_in_force
from skipserve.earning.events import Begun, Crossed, Withdrawn
from skipserve.earning.proofs import unordered
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.earning.wealth import SHARES_OF_RISK, level_of, log_wealth

RISK, LEVEL = 0.01, 0.05
RULES = Rules((RISK, 0.05), 3, LEVEL, epoch_rows=5_000, greatest_age_rows=5_000)


def in_force(*asked):
    """Candidates of the artifact's own ladder."""
    return tuple(one and one.candidate for one in places_in_force(*asked))


def counts(rows, *disagreements):
    differ = np.array(disagreements, dtype=np.int64)
    return Counts(rows, differ, np.zeros_like(differ))


def begun(rules=RULES):
    state = State()
    return applied(state, decide(rules, state, Counts.none(rules.candidates), 0.0))


def seen(state, now, now_s=0.0, rules=RULES):
    return applied(state, decide(rules, state, now, now_s))


@given(st.integers(0, 100_000), st.integers(0, 200), st.floats(1e-4, 0.5))
def test_wealth_is_the_mean_of_likelihood_ratios(agree, differ, risk):
    bets = [
        differ * math.log(share) + agree * (math.log1p(-share * risk) - math.log1p(-risk))
        for share in SHARES_OF_RISK.tolist()
    ]
    most = max(bets)
    mean = most + math.log(sum(math.exp(one - most) for one in bets) / len(bets))
    assert float(log_wealth(agree + differ, differ, risk)) == pytest.approx(mean, abs=1e-9)


@given(st.floats(1e-4, 0.5), st.floats(0.0, 1.0))
def test_a_bet_is_fair_at_the_risk_and_loses_above_it(risk, above):
    rate = risk + above * (1 - risk)
    after = rate * math.exp(log_wealth(1, 1, risk)) + (1 - rate) * math.exp(log_wealth(1, 0, risk))
    assert after <= 1 + 1e-12
    if not above:
        assert after == pytest.approx(1)


def test_wealth_is_told_for_many_candidates_and_risks_at_once():
    risks = np.array([0.01, 0.05])
    found = log_wealth(1_000, np.array([0, 3, 20]), risks[:, None])
    assert found.shape == (2, 3)
    assert found[1, 2] == log_wealth(1_000, 20, 0.05)


# Of facts that were simulated beforehand: so many rows may disagree.
@pytest.mark.parametrize(("rows", "most"), [(1_000, 2), (2_000, 8), (5_000, 30), (10_000, 71)])
def test_disagreements_allowed(rows, most):
    goal = math.log(1 / LEVEL)
    assert log_wealth(rows, most, RISK) >= goal > log_wealth(rows, most + 1, RISK)
    assert rows_needed(RISK, LEVEL, most) <= rows < rows_needed(RISK, LEVEL, most + 1)


def test_the_first_epoch_can_earn_after_494_rows():
    assert rows_needed(RISK, level_of(1, LEVEL)) == 494
    assert math.fsum(level_of(epoch, LEVEL) for epoch in range(1, 100_000)) == pytest.approx(
        LEVEL, rel=1e-4
    )


def test_nothing_is_in_force_before_it_is_earned():
    state = begun()
    assert state.epoch == 1
    assert in_force(RULES, state, 0, 0.0) == (None, None)
    state = seen(state, counts(493, 0, 0, 0))
    assert in_force(RULES, state, 493, 0.0) == (None, 2)
    state = seen(state, counts(494, 0, 0, 0))
    assert in_force(RULES, state, 494, 0.0) == (2, 2)


def test_a_candidate_waits_for_all_before_it():
    state = seen(begun(), counts(1_000, 9, 0, 9))
    assert state.crossed >= {(RISK, 1)}
    assert in_force(RULES, state, 1_000, 0.0)[0] is None
    # Its own wealth may have fallen by the time the one before it gets there.
    state = seen(state, counts(4_000, 12, 40, 40))
    assert in_force(RULES, state, 4_000, 0.0)[0] == 1


def test_a_crossing_keeps_its_counts_and_happens_once():
    state = begun()
    events = decide(RULES, state, counts(600, 0, 0, 7), 12.0)
    assert Crossed(1, RISK, 1, 600, 0, 12.0) in events
    state = applied(state, events)
    again = decide(RULES, state, counts(700, 60, 60, 60), 13.0)
    assert not again
    assert in_force(RULES, applied(state, again), 700, 13.0)[0] == 1


def test_what_was_earned_stays_while_the_next_epoch_earns_up_to_an_age():
    state = seen(begun(), counts(5_000, 0, 0, 0), now_s=50.0)
    assert state.epoch == 2
    assert in_force(RULES, state, 0, 50.0) == (2, 2)
    # A candidate that is more careful does not take its place while it is young.
    state = seen(state, counts(1_000, 0, 40, 40), now_s=60.0)
    assert state.earned(RISK) == 0
    assert in_force(RULES, state, 4_999, 60.0)[0] == 2
    state = seen(state, counts(5_000, 0, 100, 100), now_s=70.0)
    assert state.epoch == 3
    assert in_force(RULES, state, 0, 70.0)[0] == 0


def test_what_is_too_old_goes_out_of_force_though_nothing_else_was_earned():
    rules = Rules((RISK,), 1, LEVEL, 5_000, greatest_age_rows=7_000, greatest_age_s=3_600.0)
    state = seen(begun(rules), counts(5_000, 0), rules=rules)
    state = seen(state, counts(5_000, 400), rules=rules)
    assert in_force(rules, state, 1_999, 3_600.0) == (0,)
    assert in_force(rules, state, 2_000, 3_600.0) == (None,)
    assert in_force(rules, state, 1_999, 3_601.0) == (None,)


def test_a_clock_that_went_back_makes_nothing_young():
    rules = Rules((RISK,), 1, LEVEL, 5_000, 5_000, greatest_age_s=3_600.0)
    state = seen(begun(rules), counts(5_000, 0), now_s=1e9, rules=rules)
    assert in_force(rules, state, 0, 1e9) == (0,)
    assert in_force(rules, state, 0, 1e9 - 86_400) == (None,)
    # Without an age in seconds no clock matters.
    assert in_force(Rules((RISK,), 1, LEVEL, 5_000, 5_000), state, 0, 0.0) == (0,)


def test_the_alarm_takes_everything_out_of_force_and_begins_an_epoch():
    state = seen(seen(begun(), counts(5_000, 0, 0, 0)), counts(600, 0, 0, 0))
    now = counts(700, 1, 2, 30)
    events = withdraw(RULES, state, 90, 30, now.rows, 8.0)
    assert events == [Withdrawn(2, 90, 30, 8.0), Begun(3, "alarm", 700, 5_000, 8.0)]
    state = applied(state, events)
    assert state.withdrawn
    assert in_force(RULES, state, 0, 8.0) == (None, None)
    # It earns again, at the level of the third epoch.
    state = seen(state, counts(rows_needed(RISK, level_of(3, LEVEL)), 0, 9, 9))
    assert in_force(RULES, state, 0, 9.0)[0] == 0


def test_where_nothing_shall_be_earned_the_epoch_goes_on():
    state = begun()
    assert not decide(RULES, state, counts(90_000, 0, 0, 0), 1.0, earning=False)


def test_the_length_of_an_epoch_was_fixed_as_it_began():
    state = begun()
    longer = replace(RULES, epoch_rows=20_000)
    state = seen(state, counts(5_000, 0, 0, 0), rules=longer)
    assert (state.epoch, state.epoch_rows) == (2, 20_000)
    state = seen(state, counts(19_999, 0, 0, 0), rules=RULES)
    assert state.epoch == 2


def test_two_replicas_that_saw_the_same_begin_one_epoch():
    state = begun()
    events = decide(RULES, state, counts(5_000, 0, 0, 0), 1.0)
    later = decide(RULES, state, counts(5_010, 0, 0, 0), 2.0)
    assert applied(state, [*events, *later]) == applied(state, events)


def test_reset_forgets_what_was_earned():
    state = seen(begun(), counts(600, 0, 0, 0))
    state = applied(state, reset(RULES, 7, 3.0))
    assert state == State(8, 5_000, "reset")


def test_counts_of_other_candidates_are_an_error():
    with pytest.raises(ValueError, match="not of 3 candidates"):
        decide(RULES, begun(), counts(10, 0), 0.0)


def test_candidates_that_are_not_ordered_are_found():
    assert unordered([(3.0, 2.0), (2.0, 2.5), (1.0, 1.0)]) is None
    assert unordered([(3.0, 2.0), (1.0, 1.0), (1.0, math.inf)]) == (1, 2)
    assert unordered([(1.0,), (1.0,)]) == (0, 1)
    assert unordered([(1.0, 2.0), (2.0, 1.0), (1.5, 2.0)]) == (0, 2)


@settings(max_examples=examples(30), deadline=None)
@given(st.data())
def test_any_counts_leave_a_state_that_its_events_rebuild(data):
    rules = Rules((0.02, 0.1), 3, LEVEL, epoch_rows=400, greatest_age_rows=300)
    state, events, total = State(), [], Counts.none(3)
    for step in range(data.draw(st.integers(1, 40))):
        news = decide(rules, state, total, float(step))
        force = in_force(rules, state, total.rows, float(step))
        if data.draw(st.booleans()) and force[1] is not None:
            news = withdraw(rules, state, 9, 3, total.rows, float(step))
        epoch = state.epoch
        state = applied(state, news)
        events += news
        if state.epoch != epoch:
            total = Counts.none(3)
        rows = data.draw(st.integers(0, 200))
        total += counts(rows, *sorted(data.draw(st.integers(0, rows)) for _ in range(3)))
        # Every number in force was proven by a crossing of its own and of all before it.
        proven = {(one.risk, one.candidate) for one in events if isinstance(one, Crossed)}
        for risk, candidate in zip(
            rules.risks, in_force(rules, state, total.rows, 0.0), strict=True
        ):
            assert candidate is None or {(risk, one) for one in range(candidate + 1)} <= proven
    assert applied(State(), events) == state


def test_a_candidate_at_the_risk_is_hardly_ever_earned():
    # 400 streams of 30,000 rows in epochs of 3,000: at δ = 5 % about 20 may err, with chance 31.
    random = np.random.default_rng(17)
    rows = np.arange(1, 3_001)
    erred = np.zeros(400, dtype=bool)
    for epoch in range(1, 11):
        differ = (random.random((400, 3_000)) < RISK).cumsum(axis=1, dtype=np.int32)
        best = log_wealth(rows[::10], differ[:, ::10], RISK).max(axis=1)
        erred |= best >= math.log(1 / level_of(epoch, LEVEL))
    assert erred.sum() <= 31
