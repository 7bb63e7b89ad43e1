"""Metrics: counted right, kept when a worker dies, readable at any moment, and documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

import skipserve
from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.service.service import Service
from skipserve.telemetry.counts import LostCounts
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.metrics import ModelMetrics, _observe
from skipserve.telemetry.probes import Probes
from skipserve.telemetry.series import BUCKETS
from skipserve.training.recipes import open_recipe

RISK = 0.05
DEPTH = 4
# Opens an artifact as a worker does, answers its example so many times, and waits to be killed.
WORKER = """
import json, sys
import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest
from skipserve.service.service import Service
engine = skipserve.open(sys.argv[1], provider="cpu")
service = Service(engine, ServingConfig(risk=0.05, evidence=1.0))
body = json.dumps(engine.manifest.request_of(engine.manifest.example.inputs)).encode()
for _ in range(int(sys.argv[2])):
    reply, = service.answer([RawRequest(body, {"content-type": "application/json"})])
print(reply.status, flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def directory(routed_project):
    return routed_project[0] / "artifacts" / "small"


@contextmanager
def worker(artifact: Path, metrics: Path, requests: int):
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(artifact), str(requests)],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(metrics)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout.readline() == b"200\n"
            yield process
        finally:
            process.kill()


def values(exposition: Exposition) -> dict[tuple[str, frozenset], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition.text()[0].decode())
        for sample in family.samples
    }


def total(exposition: Exposition, name: str) -> float:
    found = values(exposition)
    return sum(value for (series, _), value in found.items() if series == f"skipserve_{name}")


def test_counts_outlive_their_worker_and_what_only_the_living_say_does_not(directory, tmp_path):
    exposition = Exposition(tmp_path)
    with worker(directory, tmp_path, 5) as first:
        while_alive = values(exposition)
    gone = values(exposition)
    assert gone == while_alive  # nobody has noticed yet
    exposition.retire(first.pid)
    after = values(exposition)
    lost = {name for name, _ in while_alive.keys() - after.keys()}
    assert lost == {
        f"skipserve_{name}"
        for name in (
            *("model_info", "provider_fallback", "certified_risk_ratio", "risk_in_force_ratio"),
            "threshold",
        )
    }
    assert all(value == while_alive[key] for key, value in after.items())
    exposition.retire(first.pid)  # told twice: nothing is counted twice
    assert values(exposition) == after
    with worker(directory, tmp_path, 3):
        assert total(exposition, "requests_total") == 8
        assert total(exposition, "evidence_rows_total") == 8
        assert total(exposition, "model_info") == 1


def test_workers_counts_are_openmetrics_too(directory, tmp_path):
    exposition = Exposition(tmp_path)
    with worker(directory, tmp_path, 5):
        text, kind = exposition.text("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in openmetrics_families(text.decode())
        for sample in family.samples
    }
    assert found == values(exposition)


def test_it_can_be_read_while_workers_come_and_go(directory, tmp_path):
    exposition = Exposition(tmp_path)
    done = threading.Event()
    seen: list[float] = []

    def scrape():
        while not done.is_set():
            seen.append(total(exposition, "requests_total"))

    scraper = threading.Thread(target=scrape)
    scraper.start()
    try:
        for _ in range(2):
            with worker(directory, tmp_path, 200) as process:
                pass
            exposition.retire(process.pid)
    finally:
        done.set()
        scraper.join()
    assert seen == sorted(seen)  # a counter never goes back
    assert total(exposition, "requests_total") == 400
    assert len(list(tmp_path.iterdir())) == 2  # counters and histograms, however many have died


@contextmanager
def probed(exposition: Exposition):
    with urllib.request.socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    probes = Probes(("127.0.0.1", port), exposition, threading.Event(), lambda: True)
    try:
        yield f"http://127.0.0.1:{port}/metrics"
    finally:
        probes.close()


def test_a_file_that_is_just_being_made_holds_nothing(tmp_path):
    (tmp_path / "counter_1.db").touch()
    (tmp_path / "gauge_livemax_1.db").write_bytes(bytes(1 << 16))
    assert total(Exposition(tmp_path), "requests_total") == 0


def test_counts_that_somebody_deleted_are_missed_and_no_lower_ones_shown(directory, tmp_path):
    exposition = Exposition(tmp_path)
    with worker(directory, tmp_path, 3) as process:
        assert total(exposition, "requests_total") == 3
        (tmp_path / f"counter_{process.pid}.db").unlink()
        with probed(exposition) as url, pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code == 503
        assert f"counter_{process.pid}.db".encode() in caught.value.read()
    with pytest.raises(LostCounts):
        exposition.samples("counter_*.db")


@pytest.mark.parametrize(
    "content", [b"\x40\0\0\0damaged" * 20, b"\xff", b"\x20\0\0\0" + b"\x7f" * 80]
)
def test_a_damaged_file_fails_the_scrape_and_gives_no_wrong_number(tmp_path, content):
    (tmp_path / "counter_1.db").write_bytes(content)
    with probed(Exposition(tmp_path)) as url:
        with pytest.raises(HTTPError) as caught:
            urllib.request.urlopen(url)
        assert caught.value.code == 503
        assert b"cannot be read" in caught.value.read()
        (tmp_path / "counter_1.db").unlink()
        with urllib.request.urlopen(url) as reply:  # and the next one is fine
            assert b"skipserve_build_info" in reply.read()


@pytest.mark.parametrize("options", ["size=128k", "ro"])
def test_a_worker_that_can_write_no_metrics_serves_on_and_says_so(directory, tmp_path, options):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    mount = f'mount -t tmpfs -o {options} none "$0" && exec "$@"'
    command = [sys.executable, "-c", WORKER, str(directory), "3"]
    done = subprocess.run(
        [*namespace, "sh", "-c", mount, str(tmp_path), *command],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "200\n"), done.stderr
    assert "small serves without metrics" in done.stderr


def test_many_observations_at_once_are_those_one_by_one():
    rng = np.random.default_rng(0)
    amounts = [*BUCKETS, 0.0, 11.0, *rng.exponential(0.02, size=50)]
    registries = CollectorRegistry(), CollectorRegistry()
    one, other = (Histogram("h", "h", buckets=BUCKETS, registry=r) for r in registries)
    for amount in amounts:
        for _ in range(3):
            one.observe(amount)
        _observe(other, amount, 3)
    samples = [
        {
            (s.name, s.labels.get("le")): s.value
            for m in r.collect()
            for s in m.samples
            if "created" not in s.name
        }
        for r in registries
    ]
    assert samples[0] == pytest.approx(samples[1])


# --- what is counted of a routed batch ---


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


# --- the list ---


def test_every_metric_is_documented_and_every_documented_one_exists(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(skipserve_\w+)`", page, re.MULTILINE))
    defined = {
        family.name + ("_total" if family.type == "counter" else "")
        for registry in (REGISTRY, Exposition(tmp_path)._registry)
        for family in registry.collect()
        if family.name.startswith("skipserve_")
    }
    assert documented == defined
