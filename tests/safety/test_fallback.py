"""Drift that passes the guard makes a real server fall back; the traffic it knows does not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from running import free_ports, workers_of

from skipserve.address import Address
from skipserve.hosts.config import HostConfig
from skipserve.hosts.launcher import Server
from skipserve.safety.switch import REASONS
from skipserve.training.recipes import open_recipe

pytestmark = pytest.mark.server
REQUEST = 25  # rows
OVERRIDES = {"evidence": 1.0}
WORKERS = 2
DISAGREE = REASONS["fell_back"]


class Served:
    """The small model with a router behind a real host."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.metrics_port = server.address.metrics_port

    def send(self, rows) -> list[dict]:
        return [self._ask(part) for part in np.split(rows, range(REQUEST, len(rows), REQUEST))]

    def _ask(self, rows) -> dict:
        body = json.dumps({"inputs": rows.tolist()}).encode()
        url = self._server.url(self._server.manifests[0])
        request = Request(url, body, {"Content-Type": "application/json"})
        with urlopen(request, timeout=60) as reply:
            return json.loads(reply.read())

    def total(self, name: str, **labels: str) -> float:
        with urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics") as reply:
            text = reply.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == f"skipserve_{name}" and labels.items() <= sample.labels.items()
        )

    def stop(self) -> None:
        self._server.close()

    def in_state(self, state: str) -> bool:
        return self.total("router_state", state=state) == 1

    def workers(self) -> list[psutil.Process]:
        return workers_of(os.getpid())


@pytest.fixture(scope="module")
def served(routed_project, tmp_path_factory, host):
    port, metrics_port = free_ports()
    store = tmp_path_factory.mktemp("store")  # where its router is switched off by hand
    archive = Path(shutil.copy(routed_project[0] / "model_store" / "small.mar", store))
    config = HostConfig(Address("127.0.0.1", port, metrics_port), workers=WORKERS)
    with Server([archive], config, host, OVERRIDES) as server:
        yield Served(server)


@pytest.fixture(scope="module")
def moons():
    return open_recipe("two_moons").draw("certify").inputs.numpy()[:1000]


def until(condition, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def router(served: Served, command: str, *model: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "skipserve.cli", "router", command, *model],
        env={**os.environ, "SKIPSERVE_METRICS_PORT": str(served.metrics_port)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_same_traffic_as_ever_leaves_skipping_on(served, moons):
    assert {reply["router"] for reply in served.send(moons)} == {"on"}
    until(lambda: served.total("evidence_rows_total") >= len(moons))
    assert served.total("evidence_dropped_rows_total") == 0
    time.sleep(2)  # two looks of the monitor
    assert served.in_state("on")
    assert served.total("alarm_evidence") < 20


def test_mild_drift_makes_it_fall_back_and_a_killed_worker_changes_nothing(served, moons):
    # So few at once that those behind the alarm cannot earn before it is seen.
    for part in np.array_split(moons / 2 + moons.mean(0) / 2, 20):
        wanted = served.total("evidence_rows_total") + len(part)
        served.send(part)
        # Rows behind the alarm earn, and are not counted there.
        until(
            lambda rows=wanted: (
                served.in_state("fell_back") or served.total("evidence_rows_total") >= rows
            )
        )
        if served.in_state("fell_back"):
            break
    until(lambda: served.in_state("fell_back"))
    assert served.total("guard_held_back_rows_total") < 0.05 * 2 * len(moons)
    assert served.total("router_fallbacks_total") == 1
    assert served.total("earning_epoch") == 2
    for worker in served.workers():
        worker.send_signal(signal.SIGKILL)
    until(lambda: served.total("worker_restarts_total") == 2)
    until(lambda: len(served.workers()) == 2 and served.total("model_info") == 1)
    reply = served.send(moons[:1])[0]
    assert (reply["router"], reply["router_reason"]) == ("off", DISAGREE)
    until(lambda: served.total("earning_rows") >= 1)
    assert served.in_state("fell_back")


def test_it_comes_back_with_a_certificate_that_its_traffic_has_earned(served, moons):
    # Rows far from the border between the moons, on which nobody disagrees.
    apart = moons[np.abs(moons[:, 1] - 0.25) > 0.6]
    assert served.in_state("fell_back")
    for _ in range(20):
        served.send(apart)
        if served.in_state("on"):
            break
        time.sleep(1)
    until(lambda: served.in_state("on"))
    until(lambda: served.send(moons[:1])[0]["router"] == "on")
    assert served.total("earning_in_force") >= 1
    assert served.total("alarm_evidence") < 20


def test_the_operator_switches_it_off_and_on(served, moons):
    assert router(served, "off", "small") == "small: disabled (was on), also after a restart\n"
    reply = served.send(moons[:1])[0]
    assert (reply["router"], reply["router_reason"]) == ("off", "switched off by the operator")
    assert router(served, "status") == "small: disabled, also after a restart\n"
    until(lambda: served.in_state("disabled"))
    assert router(served, "on", "small") == "small: on (was disabled)\n"
    assert served.send(moons[:1])[0]["router"] == "on"
    until(lambda: served.in_state("on"))


def test_it_is_not_ready_while_it_stops(served):
    url = f"http://127.0.0.1:{served.metrics_port}/ready"
    seen: list[int] = []

    def poll() -> None:
        while True:
            try:
                with urlopen(url, timeout=10) as reply:
                    seen.append(reply.status)
            except HTTPError as error:
                seen.append(error.code)
            except OSError:  # closed, at last
                return
            time.sleep(0.01)

    until(lambda: served.total("model_info") == 1)
    with ThreadPoolExecutor(1) as pool:
        polling = pool.submit(poll)
        until(lambda: 200 in seen)
        served.stop()
        polling.result(60)
    assert seen == sorted(seen)  # 200 and then 503, and never 200 again
    assert 503 in seen
