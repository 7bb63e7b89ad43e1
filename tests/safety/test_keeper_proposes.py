"""A model whose first rows propose: what its workers are told, and what outlives what."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from earning_model import Model, earning
from needed_rows import rows_needed

from skipserve.earning.process_file import folder_of
from skipserve.earning.rows_file import RowsFile
from skipserve.earning.wealth import level_of
from skipserve.earning.worker_state import WorkerState
from skipserve.runtime.shown import Shown
from skipserve.safety.kind import own_ladder
from skipserve.safety.switch import ControlState

ROWS = 200


class Proposing(Model):
    """A model that is watched, with a worker whose rows propose."""

    def __init__(self, directory, artifact, state=None):
        super().__init__(directory, artifact, state)
        self.decisions = len(artifact.manifest.router.decisions)
        self.rows = RowsFile(self.state, self.binding)
        self.known = WorkerState(self.state, self.binding, own_ladder(artifact))
        self.watch.tick()

    def shows(self, rows, far=5.0, seed=0):
        """Rows that the guard of calibration holds back; the surer of them agree."""
        rng = np.random.default_rng(seed)
        signals = rng.random((rows, self.decisions)).astype(np.float32)
        distances = np.full((rows, self.decisions), far, np.float32)
        self.rows.add(self.control.epoch, Shown(signals, distances, signals > 0.1))
        self.rows.flush()
        self.watch.tick()

    def proves(self, rows, wrong=0):
        """Evidence rows for what was proposed."""
        ladder = self.known.ladder(self.control.proposal)
        differ = np.full(len(ladder), wrong, np.int64)
        self.file.add(self.control.epoch, rows, differ, differ, proposal=ladder.proposal)
        self.file.flush()
        self.watch.tick()

    def close(self):
        for one in (self.file, self.rows, self.known):
            one.close()


@pytest.fixture
def proposes(certified):
    return earning(certified, propose_rows=ROWS)


@pytest.fixture
def model(tmp_path, proposes):
    made = Proposing(tmp_path / "one", proposes)
    yield made
    made.close()


def test_rows_propose_and_those_after_them_earn(model, caplog):
    caplog.set_level(logging.WARNING)
    assert model.control == ControlState("on", 1, (None, None), proposing=True)
    model.shows(120)
    assert model.value("earning_proposing_rows") == 120
    assert model.value("earning_proposing_needed_rows") == ROWS
    assert model.value("earning_rows") == 0
    # Rows that were counted by mistake for the artifact's own candidates earn nothing.
    model.sees(50_000)
    assert model.control.proposing and model.control.in_force == (None, None)
    model.shows(80)
    name = model.control.proposal
    assert model.control == ControlState("on", 1, (None, None), proposal=name)
    assert len(name) == 32
    assert model.known.ladder(name).guard_limit == 5.0
    model.watch.tick()
    assert model.value("earning_proposing_rows") is None
    assert model.value("earning_rows") == 0
    model.proves(rows_needed(0.05, level_of(1, 0.05)) - 1)
    assert model.control.in_force == (None, None)
    model.proves(1)
    last = len(model.known.ladder(name)) - 1
    assert model.control.in_force == (None, last)
    model.watch.tick()
    assert model.value("earning_in_force", risk="0.05") == last + 1
    assert model.value("earning_proposed", risk="0.05") == 1
    assert model.value("earning_proposed", risk="0.02") is None
    assert model.control.places == (None, (last, name))
    assert f"has candidate {last + 1} of {last + 1} in force at risk 0.05" in caplog.text
    assert model.value("earning_bolder_total") == 1


def test_a_restart_goes_on_where_it_was(tmp_path, model, proposes):
    model.shows(150)
    again = Proposing(tmp_path / "again", proposes, model.state)
    assert again.control.proposing
    again.shows(50, seed=1)  # another replica's rows are among them
    model.watch.tick()
    name = again.control.proposal
    assert name and model.control == again.control  # proposed once
    again.proves(600)
    assert again.control.places[1][1] == name
    again.close()
    once_more = Proposing(tmp_path / "more", proposes, model.state)
    assert once_more.control == again.control
    once_more.close()


def test_the_old_certificate_stays_in_force_while_the_next_epoch_proposes(tmp_path, certified):
    artifact = earning(certified, propose_rows=ROWS, epoch_rows=1_000)
    model = Proposing(tmp_path / "one", artifact)
    model.shows(ROWS)
    first = model.control.proposal
    model.proves(1_000)
    assert (model.control.epoch, model.control.proposing) == (2, True)
    before = model.control.places
    assert before[1] == (len(model.known.ladder(first)) - 1, first)
    model.shows(ROWS, far=9.0, seed=2)
    second = model.control.proposal
    assert second not in ("", first)
    assert model.known.ladder(second).guard_limit == 9.0
    assert model.control.places == before
    # What epoch 1 counted, and what is counted late for its ladder, is none of this epoch's.
    ladder = model.known.ladder(first)
    none = np.zeros(len(ladder), np.int64)
    model.file.add(2, 5_000, none, none, proposal=first)
    model.watch.tick()
    assert model.control.places == before and model.value("earning_rows") == 0
    model.proves(999)
    assert model.control.places[1] == (len(model.known.ladder(second)) - 1, second)
    model.worker.evidence(100, 30)
    model.watch.tick()
    model.watch.tick()
    assert model.control == ControlState("fell_back", 3, (None, None), proposing=True)
    model.close()


def test_offline_certificates_need_no_proposal_until_the_alarm(tmp_path, certified):
    model = Proposing(tmp_path / "one", earning(certified, "offline", propose_rows=ROWS))
    assert model.control == ControlState("on", 1, None)
    model.worker.evidence(100, 30)
    model.watch.tick()
    model.watch.tick()
    assert model.control == ControlState("fell_back", 2, (None, None), proposing=True)
    model.shows(ROWS)
    model.proves(2_000)
    assert model.control.state == "on" and model.control.places[1][1]
    model.close()


@pytest.mark.parametrize("file", ["rows.*", "ledger"])
def test_what_cannot_be_relied_on_leads_to_full_depth(model, caplog, file):
    model.shows(ROWS)
    model.proves(600)
    assert model.control.in_force[1] is not None
    if file == "rows.*":
        model.worker.evidence(100, 30)
        model.watch.tick()
        model.watch.tick()
        model.shows(10)
    (found,) = folder_of(model.state, model.binding).glob(file)
    before = found.read_bytes()
    found.write_bytes(before.replace(b'"epoch":', b'"epocx":'))
    model.watch.tick()
    assert model.control.in_force == (None, None)
    assert model.value("earning_problem") == 1
    assert "is damaged" in caplog.text
    found.write_bytes(before)
    model.watch.tick()
    assert model.value("earning_problem") == 0


def test_counts_of_more_candidates_than_were_proposed_earn_nothing(model, caplog):
    model.shows(ROWS)
    none = np.zeros(len(model.known.ladder(model.control.proposal)) + 1, np.int64)
    model.file.add(1, 5_000, none, none, proposal=model.control.proposal)
    model.file.flush()
    model.watch.tick()
    assert model.control.in_force == (None, None)
    assert "were proposed; forget it with" in caplog.text


def test_a_worker_that_cannot_read_what_was_proposed_knows_it_once_it_can(
    model, caplog, monkeypatch
):
    model.shows(ROWS)
    file = model.folder / "ledger"
    before = file.read_bytes()
    file.write_bytes(before.replace(b"guard_limit", b"guard_limix"))
    fresh, name = (
        WorkerState(model.state, model.binding, own_ladder(model.artifact)),
        model.control.proposal,
    )
    for _ in range(3):
        assert fresh.ladder(name) is None
    assert caplog.text.count("what was proposed cannot be read") == 1
    file.write_bytes(before)
    assert fresh.ladder(name) is None  # not at every row
    fresh.close()
    monkeypatch.setattr("skipserve.earning.worker_state.RETRY_S", 0.0)
    late = WorkerState(model.state, model.binding, own_ladder(model.artifact))
    assert late.ladder("c" * 32) is None
    assert late.ladder(name).proposal == name
    late.close()


def test_an_epoch_that_shall_propose_no_more_keeps_its_ladder(model, certified, tmp_path):
    model.shows(120)
    model.watch.tick()
    assert model.control.proposing
    none = Proposing(tmp_path / "none", earning(certified, propose_rows=0), model.state)
    none.watch.tick()
    assert (none.control.epoch, none.control.proposing, none.control.proposal) == (1, False, "")
    none.close()
