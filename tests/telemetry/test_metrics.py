"""Metrics: counted right, kept when a worker dies, readable at any moment, and documented."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError

import numpy as np
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, Histogram
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from skipserve.telemetry.counts import LostCounts
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.metrics import observe
from skipserve.telemetry.probes import Probes
from skipserve.telemetry.series import BUCKETS

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
        observe(other, [(amount, 1), (amount, 2), (1.0, 0)])
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
