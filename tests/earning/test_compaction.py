"""A history without what changes nothing any more leads to the same state, and is shorter."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skipserve.earning.compaction import compacted
from skipserve.earning.counts import Counts
from skipserve.earning.counts_file import CountsFile, CountsReader
from skipserve.earning.epochs import decide, in_force, reset, withdraw
from skipserve.earning.events import Begun, Crossed
from skipserve.earning.ledger import NAME, Ledger
from skipserve.earning.process_file import folder_of
from skipserve.earning.proofs import flaw, proof_of
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied

BINDING = "a" * 64
RISKS = (0.02, 0.05)
RULES = Rules(RISKS, 3, 0.05, epoch_rows=2_000, greatest_age_rows=5_000)


def epoch_of(state, wrong):
    """A whole epoch in which each candidate disagrees on so many rows."""
    return decide(RULES, state, Counts(2_000, np.array(wrong), np.zeros(3, np.int64)), 5.0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from(["alarm", "reset"]),
            st.tuples(*[st.sampled_from([0, 40, 300])] * 3),
        ),
        max_size=12,
    )
)
def test_it_leads_to_the_same_state(steps):
    events = decide(RULES, State(), Counts.none(3), 1.0)
    for step in steps:
        state = applied(State(), events)
        if step == "alarm":
            events += withdraw(RULES, state, 90, 40, 0, 7.0)
        elif step == "reset":
            events += reset(RULES, state.epoch, 8.0)
        else:
            events += epoch_of(state, sorted(step))
    fewer = compacted(RULES, events)
    before, after = applied(State(), events), applied(State(), fewer)
    places = in_force(RULES, before, 0, 9.0)
    assert in_force(RULES, after, 0, 9.0) == places
    assert (after.epoch, after.withdrawn, after.crossed) == (
        *(before.epoch, before.withdrawn, before.crossed),
    )
    assert flaw(RULES, fewer) == ""
    for risk, place in zip(RISKS, places, strict=True):
        if place is not None:
            assert proof_of(fewer, risk, place) == proof_of(events, risk, place)
    epochs = [one.epoch for one in events if isinstance(one, Begun)]
    kept = [one.epoch for one in fewer if isinstance(one, Begun)]
    assert kept == epochs[-len(kept) :]


def test_a_ledger_of_many_epochs_stays_short(tmp_path, monkeypatch):
    monkeypatch.setattr("skipserve.earning.ledger.LONG_BYTES", 10_000)
    ledger, other = Ledger(tmp_path, BINDING, RULES), Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(3), 1.0))
    sizes = []
    for _ in range(40):
        ledger.turn(lambda state: epoch_of(state, [0, 0, 300]))
        assert other.read() == ledger.state
        sizes.append((folder_of(tmp_path, BINDING) / NAME).stat().st_size)
    assert ledger.state.epoch == 41
    assert max(sizes) < 15_000
    assert in_force(RULES, ledger.state, 0, 9.0) == ((1, ""), (1, ""))
    assert {one.epoch for one in other.events if isinstance(one, Crossed)} <= {*range(20, 41)}
    assert [one.epoch for one in other.events if isinstance(one, Begun)] == [*range(1, 42)]


@pytest.mark.parametrize(("age_s", "left"), [(7_200, []), (60, [".counts.dead"])])
def test_what_a_killed_worker_was_about_to_write_goes(tmp_path, age_s, left):
    counts, none = CountsFile(tmp_path, BINDING), np.zeros(2, np.int64)
    counts.add(1, 10, none, none)
    counts.close()
    file = folder_of(tmp_path, BINDING) / ".counts.dead"
    file.write_bytes(b"half")
    os.utime(file, (time.time() - age_s,) * 2)
    reader = CountsReader(tmp_path, BINDING, 2)
    assert reader.read()[1].rows == 10
    reader.tidy(1)
    assert [one.name for one in file.parent.glob(".*")] == left
    assert reader.read()[1].rows == 10
