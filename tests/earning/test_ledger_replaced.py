"""A ledger whose events are replaced as a whole: forgotten, or taken over from elsewhere."""

from __future__ import annotations

import contextlib
import re
import resource
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest

from skipserve.earning.counts import Counts
from skipserve.earning.counts_file import CountsFile, CountsReader
from skipserve.earning.epochs import decide, withdraw
from skipserve.earning.events import Begun
from skipserve.earning.ledger import NAME, Ledger
from skipserve.earning.process_file import folder_of
from skipserve.earning.rules import Rules
from skipserve.earning.state import State
from skipserve.earning.transfer import read_earned, take_over, write_earned
from skipserve.errors import StateError

BINDING = "a" * 64
RULES = Rules((0.01,), 2, 0.05, epoch_rows=1_000, greatest_age_rows=1_000)


def array(*values):
    return np.array(values, dtype=np.int64)


def crossing(state):
    return decide(RULES, state, Counts(900, array(0, 3), array(0, 0)), 5.0)


def begun(folder, rules=RULES):
    ledger = Ledger(folder, BINDING, rules)
    ledger.turn(lambda state: decide(rules, state, Counts.none(2), 1.0))
    return ledger


def exported(tmp_path):
    there = begun(tmp_path / "there")
    there.turn(crossing)
    write_earned(tmp_path / "earned.jsonl", there, 950, RULES, 6.0)
    return tmp_path / "earned.jsonl"


@contextlib.contextmanager
def full_disk(size):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("how", ["reset", "take_over"])
def test_what_cannot_be_replaced_stays(tmp_path, how):
    events = read_earned(exported(tmp_path), BINDING, RULES)
    ledger, counts = begun(tmp_path / "here"), CountsFile(tmp_path / "here", BINDING)
    counts.add(1, 700, array(0, 3), array(0, 0))
    counts.flush()
    file = folder_of(tmp_path / "here", BINDING) / NAME
    before = file.read_bytes()
    with full_disk(60), pytest.raises(OSError, match="File too large"):
        ledger.reset(9.0) if how == "reset" else take_over(ledger, events)
    assert file.read_bytes() == before
    assert CountsReader(tmp_path / "here", BINDING, 2).read()[1].rows == 700
    assert [one.name for one in file.parent.glob(".*")] == []
    ledger.reset(9.0)
    assert ledger.state == State(2, 1_000, "reset")
    counts.close()


def opened(file):
    """How often this process has a file open."""
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found += one.readlink() == file
    return found


def test_a_writer_that_waited_meanwhile_writes_to_what_is_there_now(tmp_path):
    ledger, other = begun(tmp_path), Ledger(tmp_path, BINDING, RULES)
    other.read()
    file = (folder_of(tmp_path, BINDING) / NAME).resolve()
    thread = threading.Thread(target=other.turn, args=[crossing])

    def decided(last):
        thread.start()
        while opened(file) < 2 and thread.is_alive():
            pass
        return [Begun(last + 1, "reset", 0, 1_000, 9.0)]

    ledger.rewrite(decided)
    thread.join()
    assert ledger.read().epoch == 2
    assert ledger.state.earned(0.01) == 0


def test_an_alarm_that_comes_between_is_not_taken_over_from(tmp_path, monkeypatch):
    events = read_earned(exported(tmp_path), BINDING, RULES)
    here = begun(tmp_path / "here")
    other, rewrite = Ledger(tmp_path / "here", BINDING, RULES), here.rewrite

    def late(decide):
        other.turn(lambda state: withdraw(RULES, state, 90, 40, 0, 7.0))
        rewrite(decide)

    monkeypatch.setattr(here, "rewrite", late)
    with pytest.raises(StateError, match="history of its own"):
        take_over(here, events)
    assert here.read().withdrawn


def test_what_is_taken_over_goes_by_the_rules_here(tmp_path):
    rules = Rules((0.01,), 2, 0.05, epoch_rows=777, greatest_age_rows=777, propose_rows=5)
    here = begun(tmp_path / "here", rules)
    take_over(here, read_earned(exported(tmp_path), BINDING, rules))
    assert (here.state.epoch_rows, here.state.propose_rows) == (777, 5)


@pytest.mark.parametrize("value", ["9" * 400, str((1 << 53) + 1)])
@pytest.mark.parametrize("field", ["epoch", "rows", "epoch_rows"])
def test_numbers_that_nobody_lives_to_see_are_damage(tmp_path, field, value):
    file = exported(tmp_path)
    (lines, whole) = [], file.read_bytes().splitlines()
    for one in whole:
        said = re.sub(rf'"{field}":\d+'.encode(), f'"{field}":{value}'.encode(), one[:-9])
        lines.append(said + f" {zlib.crc32(said):08x}\n".encode())
    file.write_bytes(b"".join(lines))
    with pytest.raises(StateError, match="is damaged"):
        read_earned(file, BINDING, RULES)
    ledger = begun(tmp_path / "here")
    folder_of(tmp_path / "here", BINDING).joinpath(NAME).write_bytes(b"".join(lines))
    ledger.reset(9.0)
    assert ledger.state.epoch <= 3
