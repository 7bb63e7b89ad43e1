"""A reload while the alarm is on record: what the workers of both artifacts may go by."""

from __future__ import annotations

from dataclasses import replace

import pytest
from earning_model import Model, earning
from monitored import Watch, Worker, other_files

from skipserve.earning.ledger import NAME
from skipserve.safety.switch import ControlState

FULL = ControlState("on", 0, ())
OWN = ControlState("on", 0, None)


@pytest.fixture(params=["offline", "both"])
def model(tmp_path, certified, request):
    made = Model(tmp_path / "one", earning(certified, request.param, confidence=0.9))
    made.watch.tick()
    yield made
    made.file.close()


def reloads(model, coming):
    """Until the workers of another artifact have taken over; what they are told meanwhile."""
    model.watch.monitor.hold([coming])
    held = model.control
    model.watch.monitor.follow(model.watch.now_s, [coming], {"small"})
    assert model.control.in_force == held.in_force  # until the next look
    return held


def test_a_rollback_does_not_serve_what_was_withdrawn(model):
    first, other = model.watch.model, other_files(model.watch.model)
    model.worker.evidence(100, 30)
    model.watch.tick()
    assert model.control.state == "fell_back"
    assert reloads(model, other) == ControlState("fell_back", 0, ())
    model.watch.tick()
    assert model.control.state == "on"
    assert reloads(model, first) == FULL
    model.watch.tick()
    assert model.control == ControlState("fell_back", 2, (None, None))


def test_own_certificates_stand_through_a_reload_where_the_alarm_was_never_raised(model):
    assert model.control.in_force is None
    assert reloads(model, model.watch.model) == OWN


def test_a_start_does_not_serve_what_was_withdrawn_before_its_workers_are_there(model, tmp_path):
    (tmp_path / "again").mkdir()
    again = Watch(tmp_path / "again", model.artifact, model.state)
    again.tick()
    assert again.switch.control().in_force is None  # the alarm was never raised
    model.worker.evidence(100, 30)
    model.watch.tick()
    again.tick()
    assert again.switch.control() == ControlState("on", 0, (None, None))
    Worker(again.directory, 1).opens(certified=False)
    again.tick()
    assert again.switch.control() == ControlState("fell_back", 2, (None, None))


def test_a_record_that_cannot_be_read_is_not_relied_on(model):
    (model.folder / NAME).write_bytes(b"half\n")
    assert reloads(model, model.watch.model) == FULL


def test_an_artifact_that_shall_earn_does_not_go_by_its_own_certificates(model):
    router = model.artifact.manifest.router.model_copy(update={"certificate": "earned"})
    manifest = model.artifact.manifest.model_copy(update={"router": router})
    watched = model.watch.model
    coming = replace(watched, artifact=replace(model.artifact, manifest=manifest))
    assert reloads(model, coming) == FULL
