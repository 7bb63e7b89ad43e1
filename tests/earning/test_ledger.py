"""The ledger of epochs: read by others and after a restart, damaged, and taken over."""

from __future__ import annotations

import os
import resource

import pytest
from evidence_files import BINDING, OTHER, array, read

from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, withdraw
from skipserve.earning.epochs import in_force as places_in_force
from skipserve.earning.event_lines import told
from skipserve.earning.events import Begun, Crossed
from skipserve.earning.ledger import NAME, Ledger
from skipserve.earning.lines import FORMAT, Header, line
from skipserve.earning.process_file import folder_of
from skipserve.earning.rules import Rules
from skipserve.earning.state import State
from skipserve.earning.transfer import read_earned, take_over, write_earned
from skipserve.errors import StateError

RULES = Rules((0.01,), 2, 0.05, epoch_rows=1_000, greatest_age_rows=1_000)


def in_force(*asked):
    """Candidates of the artifact's own ladder."""
    return tuple(one and one.candidate for one in places_in_force(*asked))


def crossing(state: State) -> list:
    return decide(RULES, state, Counts(900, array(0, 3), array(0, 0)), 5.0)


def test_a_ledger_is_read_by_others_and_after_a_restart(tmp_path):
    ledger, other = Ledger(tmp_path, BINDING, RULES), Ledger(tmp_path, BINDING, RULES)
    assert other.read() == State()
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    events = ledger.turn(crossing)
    assert events == [Crossed(1, 0.01, 0, 900, 0, 5.0)]
    assert other.read() == ledger.state == Ledger(tmp_path, BINDING, RULES).read()
    assert other.events == (Begun(1, "start", 0, 1_000, 1.0), *events)
    # The other knows of it now, and does not say it again.
    assert other.turn(crossing) == []


def test_an_epoch_begins_once_though_two_saw_its_end(tmp_path):
    ledger, other = Ledger(tmp_path, BINDING, RULES), Ledger(tmp_path, BINDING, RULES)
    over = Counts(1_000, array(900, 900), array(0, 0))

    def end(state):
        return decide(RULES, state, over if state.epoch == 1 else Counts.none(2), 2.0)

    ledger.turn(end)
    for one in (ledger, other, ledger):
        one.turn(end)
    assert other.read().epoch == 2
    assert [event.epoch for event in other.events if isinstance(event, Begun)] == [1, 2]


def test_half_an_event_of_a_killed_launcher_is_cut_off(tmp_path):
    ledger = Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    file = folder_of(tmp_path, BINDING) / NAME
    file.write_bytes(file.read_bytes() + line({"kind": "begun"})[:-9])
    again = Ledger(tmp_path, BINDING, RULES)
    assert again.read().epoch == 1
    again.turn(crossing)
    assert Ledger(tmp_path, BINDING, RULES).read().earned(0.01) == 0


def test_nothing_has_happened_that_could_not_be_written(tmp_path):
    ledger = Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    size = (folder_of(tmp_path, BINDING) / NAME).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            ledger.turn(crossing)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ledger.state.earned(0.01) is None
    assert Ledger(tmp_path, BINDING, RULES).read().earned(0.01) is None


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (lambda data: data.replace(b'"epoch":1', b'"epoch":9'), "does not have its checksum"),
        (lambda data: data + line({"kind": "promoted", "epoch": 1}), "a line is no event"),
        (lambda data: data + line({"kind": "begun", "epoch": 2}), "a line is no event"),
        (lambda data: line(Header("ledger", OTHER)), "of other files"),
        (lambda data: line(Header("ledger", BINDING, FORMAT + 1)), "a newer one wrote it"),
    ],
)
def test_a_ledger_that_is_not_what_it_was_is_an_error_until_it_is_reset(
    tmp_path, counts, harm, says
):
    ledger = Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    ledger.turn(crossing)
    counts.add(1, 900, array(0, 3), array(50, 30))
    counts.flush()
    file = folder_of(tmp_path, BINDING) / NAME
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(StateError, match=says):
        Ledger(tmp_path, BINDING, RULES).read()
    again = Ledger(tmp_path, BINDING, RULES)
    again.reset(9.0)
    # Workers that still count for the epoch they were told of count for nothing.
    assert again.state.epoch >= 2
    assert (
        again.state
        == Ledger(tmp_path, BINDING, RULES).read()
        == State(again.state.epoch, 1_000, "reset")
    )
    assert read(tmp_path) == {}
    counts.add(1, 50, array(0, 0), array(0, 0))
    counts.flush()
    assert again.state.epoch not in read(tmp_path)


def test_a_withdrawal_is_remembered(tmp_path):
    ledger = Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    ledger.turn(crossing)
    now = Counts(950, array(40, 40), array(0, 0))
    ledger.turn(lambda state: withdraw(RULES, state, 90, 40, now.rows, 7.0))
    state = Ledger(tmp_path, BINDING, RULES).read()
    assert (state.epoch, state.withdrawn, state.earned(0.01)) == (2, True, None)


def test_a_lock_that_is_never_given_back_is_an_error(tmp_path, monkeypatch):
    import fcntl

    ledger = Ledger(tmp_path, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    monkeypatch.setattr("skipserve.earning.ledger.LOCK_S", 0.0)
    held = os.open(folder_of(tmp_path, BINDING) / NAME, os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(OSError, match="keeps it locked"):
            ledger.turn(crossing)
    finally:
        os.close(held)


def earned_ledger(folder):
    ledger = Ledger(folder, BINDING, RULES)
    ledger.turn(lambda state: decide(RULES, state, Counts.none(2), 1.0))
    ledger.turn(crossing)
    return ledger


def test_what_was_earned_can_be_taken_over_where_the_same_files_serve(tmp_path):
    file, here = tmp_path / "earned.jsonl", Ledger(tmp_path / "here", BINDING, RULES)
    write_earned(file, earned_ledger(tmp_path / "there"), 950, RULES, 6.0)
    here.turn(lambda state: decide(RULES, state, Counts.none(2), 7.0))
    take_over(here, read_earned(file, BINDING, RULES))
    assert here.state == Ledger(tmp_path / "here", BINDING, RULES).read()
    assert in_force(RULES, here.state, 0, 8.0) == (0,)
    assert here.state.epoch == 2  # none that a worker here was told of
    with pytest.raises(StateError, match="history of its own"):
        take_over(here, read_earned(file, BINDING, RULES))
    here.reset(9.0)
    take_over(here, read_earned(file, BINDING, RULES))
    assert here.state.epoch > 3
    assert in_force(RULES, here.state, 0, 9.0) == (0,)


@pytest.mark.parametrize(
    "changed",
    [
        *({"rows": 493}, {"disagreements": 3}, {"risk": 0.2}, {"candidate": 2}, {"candidate": -1}),
        *({"epoch": 0}, {"disagreements": -1}, {"rows": -1}),
    ],
    ids=str,
)
def test_a_crossing_that_its_counts_do_not_prove_is_not_taken_over(tmp_path, changed):
    file = tmp_path / "earned.jsonl"
    start = Begun(1, "start", 0, 1_000, 1.0)
    for values, fine in (({"rows": 494}, True), (changed, False)):
        of = {
            "epoch": 1,
            "risk": 0.01,
            "candidate": 0,
            "rows": 900,
            "disagreements": 0,
            "at_s": 5.0,
        }
        events = [start, Crossed(**of), Crossed(**(of | values)), Begun(2, "rows", 950, 1_000, 6.0)]
        lines = [line(Header("earned", BINDING)), *(line(told(one)) for one in events)]
        file.write_bytes(b"".join(lines))
        if fine:
            assert read_earned(file, BINDING, RULES) == events
        else:
            with pytest.raises(StateError, match=r"is not earned at .* by its counts"):
                read_earned(file, BINDING, RULES)


def test_what_others_earned_is_not_taken_over_for_other_files_or_damaged(tmp_path):
    file = tmp_path / "earned.jsonl"
    write_earned(file, earned_ledger(tmp_path / "there"), 950, RULES, 6.0)
    with pytest.raises(StateError, match="of other files"):
        read_earned(file, OTHER, RULES)
    data = file.read_bytes()
    file.write_bytes(data.replace(b'"rows":900', b'"rows":901'))
    with pytest.raises(StateError, match="does not have its checksum"):
        read_earned(file, BINDING, RULES)
    file.write_bytes(data[: data.index(b"\n") + 1])
    with pytest.raises(StateError, match="holds nothing that was earned"):
        read_earned(file, BINDING, RULES)
    with pytest.raises(StateError, match="nothing is earned yet"):
        write_earned(file, Ledger(tmp_path / "nobody", BINDING, RULES), 0, RULES, 6.0)
