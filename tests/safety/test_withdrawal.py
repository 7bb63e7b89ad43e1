"""The alarm, and what could come between it and its record: others' epochs, a full disk, a kill."""

from __future__ import annotations

import contextlib
import resource
from dataclasses import replace

import numpy as np
from earning_model import Model, earning
from needed_rows import rows_needed

from skipserve.earning.events import Begun, Withdrawn
from skipserve.earning.ladder import Place
from skipserve.earning.ledger import NAME, Ledger
from skipserve.earning.wealth import level_of
from skipserve.safety.keeper import Keeper
from skipserve.safety.kind import Kind, rules_of
from skipserve.safety.switch import ControlState

KIND = Kind("onnxruntime", "cpu", "fp32")


@contextlib.contextmanager
def full_disk(model):
    """No file can be longer than the ledger, which is refused at the same place as a full disk."""
    size = (model.folder / NAME).stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def events(model):
    ledger = Ledger(model.state, model.binding, rules_of(model.artifact))
    ledger.read()
    return ledger.events


def test_evidence_that_has_reached_the_level_is_not_lost_as_something_bolder_is_earned(model):
    few = rows_needed(0.05, level_of(1, 0.05))
    model.sees(few, wrong_from=3)
    model.watch.tick()
    assert model.control.in_force == (None, 2)
    model.worker.evidence(400, 60)
    model.sees(9 * few, wrong_from=5, share=0.0)  # the second look finds bolder ones earned
    model.watch.tick()
    assert model.control == ControlState("fell_back", 2, (None, None))
    assert model.value("router_fallbacks_total") == 1


def test_an_epoch_that_another_replica_began_takes_nothing_of_a_withdrawal(model):
    model.sees(2_000, wrong_from=5)
    one, other = (Keeper(model.artifact, model.state) for _ in range(2))
    for keeper in (one, other):
        keeper.look({KIND}, 10.0)
    assert one.in_force == other.in_force == (Place(4), Place(4))
    # Between two looks of the one, the other sees the end of the epoch.
    model.file.add(1, 8_000, *[np.zeros(model.candidates, np.int64)] * 2)
    model.file.flush()
    other.look({KIND}, 11.0)
    assert other.epoch == 2
    one.withdraw(100, 30, 1)
    assert Withdrawn(2, 100, 30, 10.0) in events(model)
    other.look({KIND}, 12.0)
    assert one.in_force == other.in_force == (None, None)
    assert other.withdrawn and other.epoch == 3


def test_two_replicas_that_raise_it_together_withdraw_once(tmp_path, certified, model):
    other = Model(tmp_path / "other", earning(certified), model.state)
    other.watch.tick()
    model.sees(2_000, wrong_from=5)
    other.watch.tick()
    for one in (model, other):
        one.worker.evidence(100, 30)
    for one in (model, other, model, other):
        one.watch.tick()
    assert [type(one) for one in events(model)].count(Withdrawn) == 1
    assert model.control == other.control == ControlState("fell_back", 2, (None, None))
    other.file.close()


def test_the_command_takes_back_an_alarm_that_was_never_written_down(model):
    model.sees(2_000, wrong_from=5)
    model.worker.evidence(100, 30)
    with full_disk(model):
        model.watch.monitor.tick(model.watch.now_s + 1)
    assert model.control.state == "fell_back"
    model.watch.switch.set("on")
    model.watch.tick(2)
    model.watch.tick()
    assert model.control.state == "on"
    assert not any(isinstance(one, Withdrawn) for one in events(model))


def test_so_does_forgetting_all_of_it(model):
    model.sees(2_000, wrong_from=5)
    model.worker.evidence(100, 30)
    with full_disk(model):
        model.watch.monitor.tick(model.watch.now_s + 1)
    Ledger(model.state, model.binding, rules_of(model.artifact)).reset(9.0)
    model.watch.tick(2)
    model.watch.tick()
    assert model.control.state == "on"
    assert [one.because for one in events(model) if isinstance(one, Begun)] == ["reset"]


def test_a_command_that_cannot_be_written_down_changes_nothing_and_says_so(model, caplog):
    model.sees(2_000, wrong_from=5)
    model.worker.evidence(100, 30)
    model.watch.tick()
    model.watch.tick()
    model.watch.switch.set("on")
    with full_disk(model):
        for seconds in (1, 2):
            model.watch.monitor.tick(model.watch.now_s + seconds)
    assert model.control == ControlState("fell_back", 2, (None, None))
    assert caplog.text.count("nothing has changed: mend it, and switch it on again") == 1
    model.watch.switch.set("on")
    model.watch.tick(3)
    assert model.control.state == "on" and model.control.epoch == 3


def test_a_writer_killed_behind_the_first_line_has_withdrawn_all_the_same(model, tmp_path):
    model.sees(2_000, wrong_from=5)
    model.worker.evidence(100, 30)
    model.watch.tick()
    file = model.folder / NAME
    lines = file.read_bytes().splitlines(keepends=True)
    assert b'"withdrawn"' in lines[-2] and b'"alarm"' in lines[-1]
    file.write_bytes(b"".join(lines[:-1]))
    model.file.close()
    again = Model(tmp_path / "again", model.artifact, model.state)
    for _ in range(3):
        again.watch.tick()
        assert again.control.in_force == (None, None)
    assert again.control == ControlState("fell_back", 2, (None, None))
    again.file.close()


def test_a_model_for_which_nothing_holds_earns_by_every_row(tmp_path, certified):
    """In mode ``both`` too, where the artifact has certificates of other files alone."""
    artifact = earning(certified, "both")
    none = artifact.certificates.model_copy(update={"certificates": ()})
    model = Model(tmp_path / "both", replace(artifact, certificates=none))
    model.watch.tick()
    model.sees(1)
    assert model.control == ControlState("on", 1, (None, None), own=True)
    model.file.add(1, 5_000, *[np.zeros(model.candidates, np.int64)] * 2)
    model.file.flush()
    model.watch.tick()
    assert model.control.in_force == (model.candidates - 1,) * 2
    model.file.close()
