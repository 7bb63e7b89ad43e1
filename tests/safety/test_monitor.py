"""The launcher's watch: from the counts of all workers to evidence, switch, states and drift.

The counts are written as the workers' library writes them, by "workers" that come and go.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.safety.model_watch import Watched
from skipserve.safety.monitor import Monitor
from skipserve.safety.switch import Switch
from skipserve.telemetry.exposition import Exposition

RISK = 0.05


class Worker:
    """The files of one worker process."""

    def __init__(self, directory: Path, pid: int) -> None:
        self._directory = directory
        self._pid = pid

    def add(self, name: str, value: float, kind: str = "counter", **labels: str) -> None:
        series = f"skipserve_{name}" + ("_total" if kind == "counter" else "")
        labels = {"model": "small", **labels}
        key = mmap_key(f"skipserve_{name}", series, list(labels), list(labels.values()), "Help.")
        file = MmapedDict(str(self._directory / f"{kind}_{self._pid}.db"))
        file.write_value(key, file.read_value(key)[0] + value, 0.0)
        file.close()

    def opens(self, certified: bool = True) -> Worker:
        kind = {"backend": "onnxruntime", "provider": "cpu", "precision": "fp32"}
        self.add("model_info", 1, "gauge_livemax", **kind)
        if certified:
            self.add("certified_risk_ratio", RISK, "gauge_livemax")
        return self

    def evidence(self, rows: int, disagreements: int, risk: float = RISK) -> None:
        self.add("evidence_rows", rows, risk=str(risk))
        self.add("evidence_disagreements", disagreements, risk=str(risk))

    def signals(self, stage: int, counts: list[int]) -> None:
        for bin_, count in enumerate(counts):
            self.add("signal_rows", count, stage=str(stage), bin=str(bin_))


class Watch:
    """A monitor of one model, and what it says."""

    def __init__(self, directory: Path, artifact, state: Path, **settings) -> None:
        (directory / "metrics").mkdir()
        self.directory = directory / "metrics"
        self.switch = Switch(directory / "small")
        self.exposition = Exposition(self.directory)
        serving = ServingConfig(**{"risk": RISK, **settings})
        self.model = Watched(artifact, serving, self.switch, state)
        self.monitor = Monitor(self.exposition, [self.model])
        self.now_s = 0.0

    def tick(self, seconds: float = 1.0) -> None:
        self.now_s += seconds
        self.monitor.tick(self.now_s)

    def value(self, name: str, **labels: str) -> float | None:
        text = self.exposition.text()[0].decode()
        found = [
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"skipserve_{name}" and labels.items() <= sample.labels.items()
        ]
        assert len(found) <= 1
        return found[0] if found else None

    def state(self) -> str:
        states = ("on", "off", "uncertified", "fell_back", "disabled")
        (state,) = [s for s in states if self.value("router_state", state=s)]
        return state


@pytest.fixture(scope="module")
def artifact(routed_project):
    return open_artifact(routed_project[0] / "artifacts" / "small")


def other_files(model: Watched) -> Watched:
    manifest = model.artifact.manifest
    files = [one.model_copy(update={"sha256": "0" * 64}) for one in manifest.files]
    changed = manifest.model_copy(update={"files": tuple(files)})
    return replace(model, artifact=replace(model.artifact, manifest=changed))


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
    assert "was switched by command: disabled" in caplog.text


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
    watched.monitor.hold({"small"})  # both are open
    worker.evidence(1000, 0)
    watched.tick()
    watched.monitor.follow(watched.now_s, [other_files(watched.model)], {"small"})
    watched.tick()
    assert watched.state() == "on"
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
