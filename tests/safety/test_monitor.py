"""The launcher's watch: from the counts of all workers to evidence, switch, states and drift.

The counts are written as the workers' library writes them, by "workers" that come and go.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import pytest
from monitored import RISK, Watch, Worker, other_files

from skipserve.artifacts.artifact import open_artifact
from skipserve.safety.monitor import Monitor
from skipserve.safety.switch import Switch


@pytest.fixture(scope="module")
def artifact(routed_project):
    return open_artifact(routed_project[0] / "artifacts" / "small")


@pytest.fixture
def watched(tmp_path, artifact):
    return Watch(tmp_path, artifact, tmp_path / "state")


def test_agreement_leaves_it_on_however_long(watched):
    worker = Worker(watched.directory, 1).opens()
    for _ in range(200):
        worker.evidence(100, 4)
        watched.tick()
    assert watched.state() == "on"
    assert watched.value("alarm_evidence") < 1
    assert watched.value("alarm_level") == 20
    assert watched.value("router_fallbacks_total") == 0


def test_disagreement_throws_the_switch_and_nothing_but_a_new_certificate_throws_it_back(
    watched, caplog
):
    worker = Worker(watched.directory, 1).opens()
    watched.tick()
    worker.evidence(100, 20)
    watched.tick()
    assert watched.switch.state() == watched.state() == "fell_back"
    assert watched.value("router_fallbacks_total") == 1
    assert watched.value("alarm_evidence") >= 20
    assert watched.value("certified_risk_ratio") is None  # whatever its workers once said
    assert "small fell back to full depth: 20 of 100 evidence rows disagree" in caplog.text
    worker.evidence(100_000, 10)
    watched.tick(1e6)
    assert watched.switch.state() == watched.state() == "fell_back"
    assert watched.value("router_fallbacks_total") == 1


def test_a_command_switches_it_on_again(watched):
    worker = Worker(watched.directory, 1).opens()
    watched.tick()
    worker.evidence(100, 20)
    watched.tick()
    watched.switch.set("on")
    watched.tick()
    assert watched.switch.control().in_force is None
    assert watched.switch.state() == watched.state() == "on"
    assert watched.value("certified_risk_ratio") == RISK
    assert watched.value("alarm_evidence") == 1  # a new bet
    worker.evidence(100, 20)
    watched.tick()
    assert watched.value("router_fallbacks_total") == 2


def test_a_restart_does_not_forget_that_the_alarm_was_raised(tmp_path, artifact, watched):
    worker = Worker(watched.directory, 1).opens()
    watched.tick()
    worker.evidence(100, 20)
    watched.tick()
    (tmp_path / "later").mkdir()
    later = Watch(tmp_path / "later", artifact, tmp_path / "state")
    Worker(later.directory, 1).opens()
    later.tick()
    assert later.switch.state() == later.state() == "fell_back"


def test_the_operator_has_the_last_word(watched, caplog):
    worker = Worker(watched.directory, 1).opens()
    watched.tick()
    watched.switch.set("disabled")
    worker.evidence(100, 20)
    watched.tick()
    assert watched.switch.state() == watched.state() == "disabled"
    assert watched.value("alarm_evidence") >= 20  # it can be seen what would happen
    assert watched.value("router_fallbacks_total") == 0
    worker.evidence(10_000, 0)
    watched.tick(1e6)
    assert watched.state() == "disabled"
    watched.switch.set("on")
    watched.tick()
    assert watched.state() == "on"
    assert watched.value("alarm_evidence") == 1
    assert "was switched by hand: disabled" in caplog.text


def test_evidence_is_of_all_workers_the_dead_ones_too(watched):
    workers = [Worker(watched.directory, pid).opens() for pid in (1, 2, 3)]
    for worker in workers:
        worker.evidence(10, 2)
    watched.tick()
    before = watched.value("alarm_evidence")
    assert before > 1
    watched.exposition.retire(1)
    watched.tick()
    assert watched.value("alarm_evidence") == before
    Worker(watched.directory, 4).opens().evidence(30, 9)
    watched.tick()
    assert watched.state() == "fell_back"
    assert watched.value("evidence_rows_total", risk=str(RISK)) == 60


@pytest.mark.parametrize(
    ("settings", "certified", "state"),
    [
        ({}, True, "on"),
        ({}, False, "uncertified"),
        ({"risk": None}, False, "off"),
    ],
)
def test_the_state_says_what_a_request_gets_that_asks_for_nothing(
    tmp_path, artifact, settings, certified, state
):
    watched = Watch(tmp_path, artifact, tmp_path / "state", **settings)
    if not certified:
        model = other_files(watched.model)  # its certificates are of the files it had
        watched.monitor = Monitor(watched.exposition, [model])
    Worker(watched.directory, 1).opens(certified)
    watched.tick()
    assert watched.state() == state
    watched.exposition.retire(1)  # nobody has it open for a moment
    watched.tick()
    assert watched.state() == state


def test_a_model_without_a_router_is_off_and_has_no_evidence(tmp_path, artifact):
    plain = replace(artifact, manifest=artifact.manifest.model_copy(update={"router": None}))
    watched = Watch(tmp_path, plain, tmp_path / "state")
    Worker(watched.directory, 1).opens(certified=False)
    watched.tick()
    assert watched.state() == "off"
    assert watched.value("alarm_evidence") is None


def test_alpha_sets_the_level(tmp_path, artifact):
    watched = Watch(tmp_path, artifact, tmp_path / "state", alarm_alpha=0.001)
    worker = Worker(watched.directory, 1).opens()
    worker.evidence(40, 9)
    watched.tick()
    assert watched.value("alarm_level") == pytest.approx(1000)
    assert 20 < watched.value("alarm_evidence") < 1000
    assert watched.state() == "on"


def test_drift_is_seen_and_only_where_there_are_rows_enough(watched):
    worker = Worker(watched.directory, 1).opens()
    worker.signals(1, [100] * 10)
    worker.signals(2, [10] * 10)
    watched.tick()
    assert watched.value("signal_drift_ratio", stage="1") == pytest.approx(0)
    assert watched.value("signal_drift_ratio", stage="2") is None
    worker.signals(1, [0] * 9 + [1000])
    watched.tick(20)
    assert watched.value("signal_drift_ratio", stage="1") > 0.25
    worker.signals(1, [100] * 10)
    watched.tick(1e6)  # all that is older than the window
    watched.tick(1e6)
    assert watched.value("signal_drift_ratio", stage="1") is None


def test_another_artifact_starts_without_the_evidence_of_the_one_before(watched):
    worker = Worker(watched.directory, 1).opens()
    worker.evidence(100, 20)
    worker.signals(1, [0] * 9 + [1000])
    watched.tick()
    assert watched.state() == "fell_back"
    watched.monitor.hold([other_files(watched.model)])  # both are open
    worker.evidence(1000, 0)
    watched.tick()
    watched.monitor.follow(watched.now_s, [other_files(watched.model)], {"small"})
    watched.tick()
    assert watched.state() == "uncertified"  # its certificates are of the files before
    assert watched.switch.state() == "on"
    assert watched.value("alarm_evidence") == 1
    assert watched.value("signal_drift_ratio", stage="1") is None
    worker.evidence(100, 20)
    watched.tick()
    assert watched.state() == "fell_back"
    assert watched.value("router_fallbacks_total") == 2


def test_the_same_artifact_keeps_its_evidence(watched):
    worker = Worker(watched.directory, 1).opens()
    worker.evidence(20, 3)
    watched.tick()
    before = watched.value("alarm_evidence")
    assert before > 1
    watched.monitor.hold(())
    watched.monitor.follow(watched.now_s, [watched.model], ())
    watched.tick()
    assert watched.value("alarm_evidence") == before


def test_what_an_operator_switched_off_stays_off_for_another_artifact(watched):
    watched.switch.set("disabled")
    watched.tick()
    watched.monitor.follow(watched.now_s, [watched.model], {"small"})
    watched.tick()
    assert watched.switch.state() == "disabled"


def test_a_model_that_is_served_no_more_is_not_shown_and_its_counts_are(watched):
    worker = Worker(watched.directory, 1).opens()
    worker.evidence(100, 4)
    worker.signals(1, [100] * 10)
    watched.tick()
    watched.monitor.follow(watched.now_s, [], ())
    watched.tick()
    for name in ("router_state", "alarm_evidence", "alarm_level", "signal_drift_ratio"):
        assert f"skipserve_{name}{{" not in watched.exposition.text()[0].decode(), name
    assert watched.value("evidence_rows_total", risk=str(RISK)) == 100


class Broken(Switch):
    """A switch on a disk that errs."""

    def tell(self, controls):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_switch_that_cannot_be_thrown_leaves_the_other_models_watched(tmp_path, watched):
    worker = Worker(watched.directory, 1).opens()
    kind = {"backend": "onnxruntime", "provider": "cpu", "precision": "fp32"}
    worker.add("model_info", 1, "gauge_livemax", model="other", **kind)
    artifact = watched.model.artifact
    manifest = artifact.manifest.model_copy(update={"name": "other"})
    other = replace(
        watched.model,
        artifact=replace(artifact, manifest=manifest),
        switch=Switch(tmp_path / "other"),
    )
    watched.monitor.follow(watched.now_s, [other, watched.model], ())
    watched.tick()
    broken = replace(other, switch=Broken(tmp_path / "other"))
    watched.monitor.follow(watched.now_s, [broken, watched.model], ())
    with pytest.raises(OSError, match="Input/output"):
        watched.monitor.hold([watched.model, broken])
    watched.tick()
    assert watched.switch.control().epoch == 1  # it is not held
    with pytest.raises(OSError, match="Input/output"):
        watched.monitor.follow(watched.now_s, [broken, watched.model], {"small", "other"})
    # It is watched, too, as soon as its switch can be thrown, and another reload finds it.
    watched.monitor.follow(watched.now_s, [other, watched.model], ())
    watched.tick()
    assert Switch(tmp_path / "other").control().epoch == 1
    watched.monitor.hold([other])
    watched.monitor.hold(())
    worker.evidence(100, 20)
    watched.tick()
    assert watched.switch.state() == "fell_back"
