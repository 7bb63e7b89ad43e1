"""What is counted of a routed batch."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import REGISTRY

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.service.service import Service
from skipserve.telemetry.metrics import ModelMetrics
from skipserve.training.recipes import open_recipe

RISK = 0.05
DEPTH = 4


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"skipserve_{name}", {"model": "small", **labels}) or 0.0


def rises(work, **series):
    """How much each series rises during some work: name to (name, labels)."""

    def now():
        return {key: sample(name, **labels) for key, (name, labels) in series.items()}

    before = now()
    work()
    return {key: value - before[key] for key, value in now().items()}


def native(rows, router=None) -> RawRequest:
    body = {"inputs": rows.tolist(), "parameters": {"router": router}}
    return RawRequest(json.dumps(body).encode(), {"content-type": "application/json"})


@pytest.fixture(scope="module")
def moons():
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()[:300]
    return np.concatenate([rows, np.float32([[30, 30]] * 20)])  # the guard holds the last ones


def test_rows_blocks_depths_and_the_guard_are_counted(directory, moons):
    engine = skipserve.open(directory, provider="cpu")
    service = Service(engine, ServingConfig(risk=RISK, evidence=0))
    routed = engine.predict(moons, RISK)
    series = {
        "on": ("rows_total", {"router": "on"}),
        "off": ("rows_total", {"router": "off"}),
        "held": ("guard_held_back_rows_total", {}),
        "depths": ("depth_run_blocks_sum", {}),
        "full": ("request_duration_seconds_count", {"depth": "full"}),
        "skipped": ("request_duration_seconds_count", {"depth": "skipped"}),
    }
    for block in range(1, DEPTH + 1):
        for action in ("run", "skipped"):
            labels = {"block": str(block), "action": action}
            series[f"{action} {block}"] = ("block_rows_total", labels)
    batch = [native(moons), native(moons[:50], "off"), native(moons[-20:])]
    rise = rises(lambda: service.answer(batch), **series)
    ran = np.concatenate([routed.depth_run, [DEPTH] * 20])
    assert (rise["on"], rise["off"]) == (len(moons) + 20, 50)
    assert rise["held"] == routed.held_back.sum() + 20
    assert rise["depths"] == ran.sum()
    assert (rise["full"], rise["skipped"]) == (2, 1)
    for block in range(1, DEPTH + 1):
        assert rise[f"run {block}"] == (ran >= block).sum()
        assert rise[f"skipped {block}"] == (ran < block).sum()


def test_rows_that_leave_before_the_first_block_are_counted(directory):
    whole = open_artifact(directory)
    first, *others = whole.manifest.router.exits
    exits = first.model_copy(update={"blocks": 0, "leaves": True}), *others[-2:]
    router = whole.manifest.router.model_copy(update={"exits": exits})
    manifest = whole.manifest.model_copy(update={"router": router, "name": "early"})
    engine = Engine(replace(whole, manifest=manifest), provider="cpu")
    setting = Setting(np.float32([0.5, 0.5, 0.5]), np.inf, RISK)
    depth = np.array([0, 0, 2, DEPTH])
    nothing = np.zeros((4, 2), np.float32)
    prediction = Prediction(depth, nothing, depth, depth < 0, np.full((4, 3), np.nan, np.float32))
    ModelMetrics(engine, {"": engine.off}).rows(prediction, [setting] * 4)

    def rows(block: int, action: str) -> float:
        return sample("block_rows_total", model="early", block=str(block), action=action)

    assert [rows(block, "run") for block in range(1, DEPTH + 1)] == [2, 2, 1, 1]
    assert [rows(block, "skipped") for block in range(1, DEPTH + 1)] == [2, 2, 3, 3]
    at_most = {
        str(le): sample("depth_run_blocks_bucket", model="early", le=f"{le}.0")
        for le in (0, 1, 2, DEPTH)
    }
    assert at_most == {"0": 2, "1": 2, "2": 3, "4": 4}


def test_blocks_are_counted_one_by_one_where_a_row_may_skip_and_go_on(directory):
    whole = open_artifact(directory)
    router = whole.manifest.router.model_copy(update={"policy": "skip"})
    manifest = whole.manifest.model_copy(update={"router": router, "name": "skipper"})
    engine = Engine(replace(whole, manifest=manifest), provider="cpu")
    setting = Setting(np.float32([0.5, 0.5, 0.5]), np.inf, RISK)
    signals = np.float32([[0.9, 0.1, 0.9], [0.1, 0.9, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.9]])
    depth, held = np.array([2, 2, 4, 4]), np.array([False, False, True, False])
    left_out = signals > 0.5
    left_out[2] = False  # held back
    nothing = np.zeros((4, 2), np.float32)
    prediction = Prediction(depth, nothing, depth, held, signals, left_out)
    settings = [setting, setting, setting, engine.off]  # the last was asked for without a router
    ModelMetrics(engine, {"": engine.off}).rows(prediction, settings)

    def rows(block: int, action: str) -> float:
        return sample("block_rows_total", model="skipper", block=str(block), action=action)

    assert [rows(block, "run") for block in range(1, DEPTH + 1)] == [3, 2, 2, 1]
    assert [rows(block, "skipped") for block in range(1, DEPTH + 1)] == [0, 1, 1, 2]


def test_signals_fall_into_tenths_of_what_calibration_saw(directory):
    engine = skipserve.open(directory, provider="cpu")
    service = Service(engine, ServingConfig(risk=RISK, evidence=0, max_rows=10_000))
    rows = open_recipe("two_moons").draw("certify").inputs.numpy()
    signals = engine.predict(rows, RISK).signals
    series = {
        f"{stage} {bin_}": ("signal_rows_total", {"stage": str(stage), "bin": str(bin_)})
        for stage in (1, 2, 3)
        for bin_ in range(10)
    }
    batch = [native(rows), native(rows[:100], "off")]
    rise = rises(lambda: service.answer(batch), **series)
    for stage in (1, 2, 3):
        reached = (~np.isnan(signals[:, stage - 1])).sum()
        counts = [rise[f"{stage} {bin_}"] for bin_ in range(10)]
        assert sum(counts) == reached
        assert counts == pytest.approx([reached / 10] * 10, abs=2 + reached / 100)


def test_the_risk_of_evidence_is_spelled_with_all_its_digits(directory):
    whole = open_artifact(directory)
    router = whole.manifest.router.model_copy(update={"risks": (5e-05, 0.0123456)})
    manifest = whole.manifest.model_copy(update={"router": router, "name": "spelled"})
    engine = Engine(replace(whole, manifest=manifest), provider="cpu")
    made = ModelMetrics(engine, {"": engine.off})
    for risk, label in ((5e-05, "0.00005"), (0.0123456, "0.0123456")):
        made.evidence("", risk, 3, 1)
        assert sample("evidence_rows_total", model="spelled", slice="", risk=label) == 3


@pytest.mark.parametrize("share", [0.0, 0.01])
def test_a_model_that_draws_no_evidence_has_no_counters_of_it(directory, share):
    # Prometheus would take counters that stay 0 for a sample that fails.
    whole = open_artifact(directory)
    name = f"share_{share:g}".replace(".", "_")
    manifest = whole.manifest.model_copy(update={"name": name})
    engine = Engine(replace(whole, manifest=manifest), provider="cpu")
    Service(engine, ServingConfig(risk=RISK, evidence=share))
    names = {
        one.name
        for family in REGISTRY.collect()
        for one in family.samples
        if one.labels.get("model") == name and "evidence" in one.name
    }
    assert bool(names) == (share > 0), names
