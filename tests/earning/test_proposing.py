"""The first rows of an epoch propose: a guard's limit and candidates for the rows after them."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from needed_rows import rows_needed

from skipserve.earning import rows_file
from skipserve.earning.counts import Counts
from skipserve.earning.counts_file import CountsFile, CountsReader
from skipserve.earning.epochs import decide, in_force, withdraw
from skipserve.earning.event_lines import told
from skipserve.earning.events import Begun, Crossed, Proposed
from skipserve.earning.ladder import OWN, Ladder, Place, name_of
from skipserve.earning.ledger import NAME, Ledger, ladders_in, used_before
from skipserve.earning.lines import Header, line
from skipserve.earning.process_file import folder_of
from skipserve.earning.progress import Pace
from skipserve.earning.proofs import flaw, proof_of, unordered
from skipserve.earning.proposing import About, propose_anew
from skipserve.earning.rows_file import RowsFile, RowsReader
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.earning.transfer import read_earned, take_over, write_earned
from skipserve.earning.wealth import level_of
from skipserve.errors import StateError
from skipserve.runtime.shown import Shown

BINDING = "a" * 64
RULES = Rules((0.02, 0.05), 3, 0.05, 2_000, 2_000, propose_rows=100)
ABOUT = About(np.array([2, 4, 10]), RULES.risks, 0.995)
CANDIDATES = ((None, 0.9), (0.9, 0.8))
BLOCKS = {OWN: (9.0, 8.0, 7.0), name_of(CANDIDATES, 3.0): (8.5, 4.0)}


def shown(rows: int, far: float = 1.0, seed: int = 0) -> Shown:
    """Rows whose signal is the chance that they agree; all at one distance, more or less."""
    rng = np.random.default_rng(seed)
    signals = np.sqrt(rng.random((rows, 2))).astype(np.float32)
    distances = (far * rng.uniform(0.5, 1.0, (rows, 1))).astype(np.float32).repeat(2, axis=1)
    return Shown(signals, distances, rng.random((rows, 2)) < signals**0.02)


def own(limit: float = 1.0) -> Ladder:
    """Candidates for rows like those of :func:`shown`."""
    table = [[0.999, 0.99], [0.98, 0.9], [0.6, 0.5]]
    return Ladder(np.array(table, np.float32), limit)


def proposed(epoch: int = 1) -> Proposed:
    name = name_of(CANDIDATES, 3.0)
    return Proposed(epoch, 100, name, 3.0, CANDIDATES, BLOCKS, 1.0)


def counts(rows: int, *disagreements: int) -> Counts:
    found = np.array(disagreements, np.int64)
    return Counts(rows, found, found)


def test_rows_that_the_guard_held_back_are_let_in_and_the_ladder_is_named_by_what_it_is():
    found = propose_anew(shown(1_000, far=4.0), ABOUT, {OWN: own()}, OWN, 3, 7.0)
    assert (found.epoch, found.rows, found.at_s) == (3, 1_000, 7.0)
    assert 3.9 < found.guard_limit <= 4.0
    assert found.proposal == name_of(found.candidates, found.guard_limit)
    assert len(found.candidates) == len(found.blocks[found.proposal]) > 1
    # Under the old guard nothing left.
    assert found.blocks[OWN] == (10.0, 10.0, 10.0)
    assert found.blocks[found.proposal][-1] < 5
    assert found.blocks[found.proposal] == tuple(sorted(found.blocks[found.proposal], reverse=True))


def test_a_ladder_that_does_as_well_stays():
    first = propose_anew(shown(1_000), ABOUT, {OWN: own(np.inf)}, OWN, 1, 0.0)
    name = first.proposal or OWN
    ladders = {OWN: own(np.inf)}
    if first.candidates:
        ladders[name] = Ladder.of(first.candidates, first.guard_limit, name)
    again = propose_anew(shown(1_000, seed=1), ABOUT, ladders, name, 2, 0.0)
    assert again.proposal == name
    assert (again.candidates, again.guard_limit) == (first.candidates, first.guard_limit)


@settings(max_examples=examples(40), deadline=None)
@given(
    rows=st.integers(1, 300),
    far=st.floats(0.1, 1e6),
    limit=st.sampled_from([0.5, 1.0, np.inf]),
    odd=st.sampled_from([np.nan, np.inf, None]),
    seed=st.integers(0, 9),
)
def test_whatever_is_shown_a_limit_is_never_lowered_or_lifted(rows, far, limit, odd, seed):
    seen = shown(rows, far, seed)
    if odd is not None:
        seen.distances[: rows // 2 + 1] = odd
        seen.signals[::3] = odd
    found = propose_anew(seen, ABOUT, {OWN: own(limit)}, OWN, 1, 0.0)
    assert flaw(RULES, [Begun(1, "start", 0, 2_000, 0.0, 100), found]) == ""
    if found.candidates:
        assert (found.guard_limit is None) == (limit == np.inf)
        assert found.guard_limit is None or limit <= found.guard_limit <= max(limit, far * 1.001)
        ladder = Ladder.of(found.candidates, found.guard_limit)
        assert unordered(ladder.thresholds.tolist()) is None
    # As the ledger keeps it.
    kept = msgspec.json.decode(msgspec.json.encode(told(found)))
    assert kept.pop("kind") == "proposed"
    assert msgspec.convert(kept, Proposed) == found


def test_rows_that_propose_earn_nothing_and_those_after_them_earn_for_what_was_proposed():
    begun = decide(RULES, State(), counts(0, 0, 0, 0), 0.0)
    state = applied(State(), begun)
    assert state.propose_rows == 100
    assert decide(RULES, state, counts(5_000, 0, 0, 0), 0.0) == []
    assert applied(state, [Crossed(1, 0.05, 0, 5_000, 0, 0.0)]).crossed == set()
    state = applied(state, [proposed()])
    assert (state.proposal, state.candidates, state.propose_rows) == (proposed().proposal, 2, 0)
    with pytest.raises(ValueError, match="are not of 2 candidates"):
        decide(RULES, state, counts(10, 0, 0, 0), 0.0)
    rows = rows_needed(0.05, level_of(1, 0.05))
    state = applied(state, decide(RULES, state, counts(rows, 0, 0), 0.0))
    assert in_force(RULES, state, rows, 0.0) == (None, Place(1, proposed().proposal))
    # Said once more, it changes nothing: an epoch has one proposal.
    assert applied(state, [replace(proposed(), proposal="b" * 32)]) == state


def test_what_was_earned_stays_in_force_of_its_own_ladder_until_the_new_one_runs_less():
    name = proposed().proposal
    events = [Begun(1, "start", 0, 2_000, 0.0, 0), Crossed(1, 0.05, 0, 900, 0, 0.0)]
    events += [Crossed(1, 0.05, 1, 900, 0, 0.0), Begun(2, "rows", 2_000, 2_000, 0.0, 100)]
    state = applied(State(), events)
    assert in_force(RULES, state, 0, 0.0) == (None, Place(1))
    state = applied(state, [proposed(2)])
    assert in_force(RULES, state, 0, 0.0) == (None, Place(1))
    state = applied(state, [Crossed(2, 0.05, 0, 900, 0, 0.0)])
    assert in_force(RULES, state, 0, 0.0) == (None, Place(1))  # 8.5 blocks are not fewer than 8
    state = applied(state, [Crossed(2, 0.05, 1, 900, 0, 0.0)])
    assert in_force(RULES, state, 0, 0.0) == (None, Place(1, name))
    # Ladders of which it is not known what they run are not bolder.
    unknown = applied(state, [Begun(3, "rows", 2_000, 2_000, 0.0, 0)])
    assert unknown.bolder(Place(0), Place(1, "c" * 32)) == Place(0)
    assert in_force(RULES, unknown, 0, 0.0) == (None, Place(1, name))
    gone = applied(state, withdraw(RULES, state, 90, 40, 0, 0.0))
    assert (in_force(RULES, gone, 0, 0.0), gone.propose_rows) == ((None, None), 100)


def test_a_history_in_which_something_does_not_follow_is_damage(tmp_path):
    begun = Begun(1, "start", 0, 2_000, 0.0, 100)
    crossed = Crossed(1, 0.05, 1, 900, 0, 0.0)
    assert flaw(RULES, [begun, proposed(), crossed]) == ""
    bolder = replace(proposed(), candidates=((None, 0.9), (0.5, 0.1)))
    wrong = {
        "not what it is named by": [begun, bolder],
        "candidate 2 is not earned": [begun, crossed],  # before anything was proposed
        "candidate 3 is not earned": [begun, proposed(), replace(crossed, candidate=2)],
        "candidate 2 is not earned at 0.05": [begun, proposed(), replace(crossed, rows=50)],
    }
    for says, events in wrong.items():
        assert says in flaw(RULES, events)
        folder = folder_of(tmp_path / says[-1], BINDING)
        folder.mkdir(parents=True, exist_ok=True)
        lines = [line(Header("ledger", BINDING)), *(line(told(one)) for one in events)]
        (folder / NAME).write_bytes(b"".join(lines))
        with pytest.raises(StateError, match=says):
            Ledger(tmp_path / says[-1], BINDING, RULES).read()


def test_counts_for_one_ladder_are_never_added_to_those_for_another(tmp_path):
    file, name = CountsFile(tmp_path, BINDING), proposed().proposal
    file.add(1, 10, np.array([0, 1, 3]), np.array([9, 8, 7]))
    file.add(1, 20, np.array([0, 2]), np.array([5, 4]), proposal=name)
    file.close()
    reader = CountsReader(tmp_path, BINDING, 3)
    assert reader.read()[1].rows == 10
    assert reader.read(name)[1].disagreements.tolist() == [0, 2]
    assert reader.read("c" * 32) == {}
    other = CountsFile(tmp_path, BINDING)
    other.add(1, 20, np.array([0]), np.array([5]), proposal=name)
    other.close()
    with pytest.raises(StateError, match="more or fewer candidates"):
        reader.read(name)


def test_a_ledger_of_format_1_is_read_and_goes_on(tmp_path):
    folder = folder_of(tmp_path, BINDING)
    folder.mkdir(parents=True)
    old = {"kind": "begun", "epoch": 1, "because": "start", "rows_before": 0, "epoch_rows": 2_000}
    data = line(Header("ledger", BINDING, 1)) + line({**old, "at_s": 1.0})
    (folder / NAME).write_bytes(data)
    ledger = Ledger(tmp_path, BINDING, RULES)
    assert (ledger.read().epoch, ledger.state.propose_rows) == (1, 0)


def test_rows_of_all_processes_are_read_and_each_keeps_so_many(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_file, "MOST_ROWS", 100)
    one, other = (RowsFile(tmp_path, BINDING) for _ in range(2))
    part = shown(60)
    for file in (one, other, one):
        file.add(1, part)
        file.flush()
    found = RowsReader(tmp_path, BINDING, 2).read(1)
    assert len(found) == 60 + 100  # 40 of the 60 that came last
    assert {tuple(row) for row in found.signals.tolist()} == {
        tuple(row) for row in part.signals.tolist()
    }
    one.add(2, part[:10])
    one.add(1, part)  # of an epoch that is over
    for file in (one, other):
        file.close()
    reader = RowsReader(tmp_path, BINDING, 2)
    assert len(reader.read(2)) == 10 and len(reader.read(3)) == 0
    found = reader.read(2)
    for name in ("signals", "distances", "agrees"):
        assert np.array_equal(getattr(found, name), getattr(part[:10], name))
    reader.tidy(2)
    assert len(list(folder_of(tmp_path, BINDING).glob("rows.*"))) == 1


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data.replace(b'"epoch":1', b'"epoch":2'),
        lambda data: data + line({"epoch": 1, "signals": "AAAA", "distances": "", "agrees": ""}),
        lambda data: data + line({"epoch": 1}),
        lambda data: line(Header("rows", "b" * 64)),
        lambda data: line(Header("counts", BINDING)),
    ],
)
def test_rows_that_are_not_what_they_were_are_an_error(tmp_path, harm):
    made = RowsFile(tmp_path, BINDING)
    made.add(1, shown(5))
    made.close()
    (file,) = folder_of(tmp_path, BINDING).glob("rows.*")
    whole = file.read_bytes()
    file.write_bytes(whole[:-3])
    assert len(RowsReader(tmp_path, BINDING, 2).read(1)) == 0  # half a line of a killed writer
    file.write_bytes(harm(whole))
    with pytest.raises(StateError):
        RowsReader(tmp_path, BINDING, 2).read(1)


def test_what_was_proposed_is_taken_over_with_what_it_earned(tmp_path):
    here, there = (Ledger(tmp_path / name, BINDING, RULES) for name in ("here", "there"))
    crossed = Crossed(1, 0.05, 0, 900, 0, 0.0)
    there.turn(lambda state: [Begun(1, "start", 0, 2_000, 0.0, 100), proposed(), crossed])
    assert proof_of(there.events, 0.05, Place(0, proposed().proposal)) == crossed
    assert proof_of(there.events, 0.05, Place(0)) is None
    write_earned(tmp_path / "file", there, 900, RULES, 6.0)
    take_over(here, read_earned(tmp_path / "file", BINDING, RULES))
    assert in_force(RULES, here.state, 0, 0.0) == (None, Place(0, proposed().proposal))
    ladder = ladders_in(tmp_path / "here", BINDING, own())[proposed().proposal]
    assert ladder.guard_limit == 3.0
    assert ladder.thresholds.tolist() == [
        [np.inf, np.float32(0.9)],
        [np.float32(0.9), np.float32(0.8)],
    ]
    assert used_before(here.events, here.state.epoch) == proposed().proposal
    here.reset(9.0)
    assert used_before(here.events, here.state.epoch) == OWN
    assert json.loads(json.dumps(told(proposed())))["candidates"] == [[None, 0.9], [0.9, 0.8]]


@pytest.mark.parametrize(
    ("candidates", "limit"),
    [(CANDIDATES, None), (CANDIDATES, 0.5), (((0.9,), (0.8,)), 3.0), (((0.9, 0.9), (0.8,)), 3.0)],
    ids=["guard off", "guard lowered", "other decisions", "ragged"],
)
def test_a_proposal_that_is_not_for_this_model_is_damage(tmp_path, candidates, limit):
    rules = replace(RULES, own=own())
    event = Proposed(1, 100, name_of(candidates, limit), limit, candidates, {}, 1.0)
    begun = Begun(1, "start", 0, 2_000, 0.0, 100)
    assert flaw(rules, [begun, proposed()]) == ""
    assert "not for" in flaw(rules, [begun, event])


def test_no_rows_leave_the_ladder_as_it_was():
    found = propose_anew(Shown.none(2), ABOUT, {OWN: own()}, OWN, 1, 0.0)
    assert (found.proposal, found.candidates, found.rows, found.blocks) == (OWN, (), 0, {})


def test_a_pace_begins_anew_with_another_count():
    pace = Pace()
    assert [pace.take("rows that propose", rows, s) for s, rows in ((0, 0), (10, 1000))][-1] == 100
    assert pace.take("evidence", 0, 11) == 0
    assert pace.take("evidence", 50, 12) == 50
