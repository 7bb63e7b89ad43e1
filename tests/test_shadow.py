"""Shadow runs in the worker: drawn by chance, run when idle, counted right, dropped aloud."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from prometheus_client import REGISTRY

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.prediction import Setting
from skipserve.runtime.wave import Limits
from skipserve.safety.switch import Switch
from skipserve.service.service import Service
from skipserve.service.shadow import PATIENCE_S, QUEUE_ROWS, WAIT_S, Answered, Shadow
from skipserve.telemetry.metrics import NoMetrics
from skipserve.training.recipes import open_recipe

RISK = 0.05


class Counts(NoMetrics):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.rows: Counter[float] = Counter()
        self.disagreements: Counter[float] = Counter()
        self.dropped = 0

    def shadow(self, risk, rows, disagreements):
        self.rows[risk] += rows
        self.disagreements[risk] += disagreements

    def shadow_dropped(self, rows):
        self.dropped += rows


@pytest.fixture(scope="module")
def engine(routed_project):
    return skipserve.open(routed_project[0] / "artifacts" / "small", provider="cpu")


@pytest.fixture(scope="module")
def moons():
    """Rows of which about one in five is answered otherwise when it skips."""
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:1000]
    return np.float32(rows / 2 + rows.mean(0) / 2)


@pytest.fixture
def counts():
    return Counts()


def shadow_of(engine, counts, share=1.0, budget_s=1.0, message_waits=lambda: False):
    return Shadow(engine, counts, share, budget_s, message_waits)


def answered(engine, rows, risk=RISK, off=False):
    wanted = engine.setting(risk)
    prediction = engine.predict(rows) if off else engine.predict(rows, risk)
    return Answered(engine.check(rows), prediction, [wanted] * len(rows), off)


def differing(engine, rows, risk=RISK):
    return int((engine.predict(rows, risk).labels != engine.predict(rows).labels).sum())


def in_parts(shadow, engine, rows, **options):
    for part in np.array_split(rows, 10):
        shadow.draw(answered(engine, part, **options))
        shadow.work()


@pytest.mark.parametrize("off", [False, True], ids=["skipping", "switched off"])
def test_every_disagreement_is_counted(engine, moons, counts, off):
    in_parts(shadow_of(engine, counts), engine, moons, off=off)
    assert counts.rows == {RISK: 1000}
    assert counts.disagreements == {RISK: differing(engine, moons)}
    assert counts.disagreements[RISK] > 50
    assert counts.dropped == 0


def test_rows_count_for_the_risk_they_were_served_at(engine, moons, counts):
    shadow = shadow_of(engine, counts)
    parts = {0.02: moons[:40], RISK: moons[40:100], None: moons[100:130]}
    wanted = [engine.setting(risk) for risk, rows in parts.items() for _ in rows]
    thresholds = np.stack([one.thresholds for one in wanted])
    limits = np.float32([one.guard_limit for one in wanted])
    rows = engine.check(moons[:130])
    prediction = engine.run(rows, Limits(thresholds, limits))
    shadow.draw(Answered(rows, prediction, wanted, off=False))
    shadow.work()
    assert counts.rows == {0.02: 40, RISK: 60}
    expected = {risk: differing(engine, parts[risk], risk) for risk in (0.02, RISK)}
    assert {risk: counts.disagreements[risk] for risk in expected} == expected


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_a_share_of_the_rows_is_drawn(engine, moons, counts, share):
    shadow = shadow_of(engine, counts, share)
    for _ in range(4):
        in_parts(shadow, engine, moons)
    # Six standard deviations.
    assert abs(counts.rows[RISK] - 4000 * share) <= 6 * np.sqrt(4000 * share * (1 - share))


def fails(rows, limits=None):
    raise RuntimeError("no run was expected to be made")


def test_full_depth_rows_agree_without_a_run(engine, moons, counts, monkeypatch):
    shadow = shadow_of(engine, counts)
    bold = np.full_like(engine.off.thresholds, -np.inf)
    careful = Setting(bold, 0.0, risk=RISK)  # all held back by the guard
    rows = engine.check(moons[:100])
    prediction = engine.run_thresholds(rows, careful.thresholds, careful.guard_limit)
    assert prediction.held_back.all()
    shadow.draw(Answered(rows, prediction, [careful] * 100, off=False))
    monkeypatch.setattr(engine, "run", fails)
    shadow.work()
    assert counts.rows == {RISK: 100}
    assert not counts.disagreements[RISK]


def test_nothing_begins_while_a_request_waits_and_the_rest_is_done_later(engine, moons, counts):
    waits = [False, True, True, False, False, False, False, False, False, False, False, False]
    shadow = shadow_of(engine, counts, budget_s=1e9, message_waits=lambda: waits.pop(0))
    shadow.draw(answered(engine, moons[:20]))
    shadow.work()
    assert counts.rows == {RISK: 20}
    shadow.draw(answered(engine, moons[:20]))
    shadow.work()
    assert counts.rows == {RISK: 20}
    shadow.work()
    shadow.work()
    assert counts.rows == {RISK: 40}


def test_a_row_that_has_waited_is_run_though_requests_never_stop(
    engine, moons, counts, monkeypatch
):
    now = [100.0]
    monkeypatch.setattr("skipserve.service.shadow.monotonic", lambda: now[0])
    shadow = shadow_of(engine, counts, message_waits=lambda: True)
    shadow.draw(answered(engine, moons[:20]))
    shadow.work()
    assert not counts.rows
    now[0] += PATIENCE_S * 1.1
    shadow.work()
    assert counts.rows == {RISK: 20}
    assert not counts.dropped


def test_what_finds_no_room_is_counted_as_dropped(engine, moons, counts):
    shadow = shadow_of(engine, counts)
    shadow.draw(answered(engine, moons))
    assert counts.dropped == 1000 - QUEUE_ROWS
    shadow.work()
    assert counts.rows == {RISK: QUEUE_ROWS}


def test_what_waited_too_long_is_counted_as_dropped(engine, moons, counts, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("skipserve.service.shadow.monotonic", lambda: now[0])
    shadow = shadow_of(engine, counts)
    shadow.draw(answered(engine, moons[:30]))
    now[0] += WAIT_S + 1
    shadow.draw(answered(engine, moons[:5]))
    shadow.work()
    assert counts.dropped == 30
    assert counts.rows == {RISK: 5}


def test_a_budget_too_small_for_one_row_is_said_aloud(engine, moons, counts, caplog):
    shadow = shadow_of(engine, counts, budget_s=1e-9)
    assert "gets no shadow runs: one row takes" in caplog.text
    shadow.draw(answered(engine, moons[:30]))
    shadow.work()
    assert counts.dropped == 30
    assert not counts.rows


def test_a_run_that_fails_is_counted_as_dropped(engine, moons, counts, monkeypatch):
    shadow = shadow_of(engine, counts)
    shadow.draw(answered(engine, moons[:30]))
    monkeypatch.setattr(engine, "run", fails)
    with pytest.raises(RuntimeError):
        shadow.work()
    assert counts.dropped == 30
    shadow.work()
    assert not counts.rows


# --- the switch, seen from a request ---


def ask(service, rows, router=None):
    body = {"inputs": rows.tolist(), "parameters": {"router": router}}
    request = RawRequest(json.dumps(body).encode(), {"content-type": "application/json"})
    return json.loads(service.answer([request])[0].body)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ("fell_back", "shadow runs disagree with full depth more often than certified"),
        ("disabled", "switched off by the operator"),
    ],
)
def test_a_thrown_switch_sends_everything_to_full_depth_and_says_why(
    engine, moons, tmp_path, state, reason
):
    switch = Switch(tmp_path / "small")
    service = Service(engine, ServingConfig(risk=RISK, shadow=0), switch=switch)
    assert ask(service, moons[:50])["risk"] == RISK
    switch.throw(state)
    full = engine.predict(moons[:50])
    for router in (None, "on", {"risk": 0.02}):
        reply = ask(service, moons[:50], router)
        assert (reply["router"], reply["router_reason"]) == ("off", reason)
        assert [row["depth_run"] for row in reply["outputs"]] == full.depth_run.tolist()
        assert [row["label"] for row in reply["outputs"]] == full.labels.tolist()
    assert "router_reason" not in ask(service, moons[:50], "off")
    switch.throw("on")
    assert ask(service, moons[:50])["router"] == "on"


def test_a_switched_off_service_goes_on_collecting_evidence(engine, moons, tmp_path):
    switch = Switch(tmp_path / "small")
    service = Service(engine, ServingConfig(risk=RISK, shadow=1), switch=switch)
    switch.throw("fell_back")

    def now():
        labels = {"model": "small", "risk": str(RISK)}
        names = ("shadow_rows_total", "shadow_disagreements_total")
        return [REGISTRY.get_sample_value(f"skipserve_{name}", labels) for name in names]

    before = now()
    ask(service, moons[:200])
    rows, disagreements = (after - earlier for after, earlier in zip(now(), before, strict=True))
    assert rows == 200
    assert disagreements == differing(engine, moons[:200]) > 0
