"""Request ids, log lines and spans of a real server."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from collecting import Collector
from running import workers_of

from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.hosts.torchserve.packaging import package

HANDLER = Path(__file__).parents[2] / "handlers" / "torchserve_handler.py"
JSON = {"Content-Type": "application/json"}
ROW = {"inputs": [[0.5, -0.25]]}
TENSOR = {"inputs": [{"name": "inputs", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1]}]}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
pytestmark = pytest.mark.server


@dataclass
class Server:
    """A `skipserve serve --log-format json` and what it has written."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def ask(self, body: Any, path: str = "/predictions/small", **headers: str):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", path, json.dumps(body), JSON | sent)
        reply = connection.getresponse()
        reply.read()
        connection.close()
        return reply.status, dict(reply.getheaders())

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def wait_for(self, **wanted: object) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for event in self.events():
                if wanted.items() <= event.items():
                    return event
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {wanted} in\n{self.log.read_text()}")


@pytest.fixture
def server(artifact: Artifact, collector: Collector, tmp_path: Path) -> Iterator[Server]:
    package(artifact.directory, HANDLER, ServingConfig(access_log=1.0), tmp_path / "store")
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        port, metrics_port = one.getsockname()[1], two.getsockname()[1]
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    options = ("--model-store", str(tmp_path / "store"), "--log-format", "json")
    # A proxy that is not there: a collector on this machine is reached without it.
    proxy = dict.fromkeys(("http_proxy", "HTTP_PROXY"), "http://127.0.0.1:9")
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with (tmp_path / "log").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "skipserve.cli", "serve", *ports, *options],
            env={**os.environ, **proxy, **tracing},
            stderr=stderr,
        )
    running = Server(process, port, tmp_path / "log")
    try:
        running.wait_for(logger="skipserve.cli", level="info")
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def test_a_request_can_be_followed(server, collector):
    # One server for all of it: a start takes longer than everything asked of it.
    status, headers = server.ask(ROW, X_Request_ID="mine-1", traceparent=f"00-{TRACE}-{PARENT}-01")
    assert (status, headers["x-request-id"]) == (200, "mine-1")
    said = server.wait_for(message="answered", request_id="mine-1")
    assert (said["trace_id"], said["rows"], said["status"]) == (TRACE, 1, 200)

    status, headers = server.ask(TENSOR, "/v2/models/small/infer", X_Request_ID="mine-2")
    assert (status, headers["x-request-id"]) == (200, "mine-2")

    made = [server.ask(ROW, **asked)[1]["x-request-id"] for asked in ({}, {"X_Request_ID": "a b"})]
    assert "a b" not in made
    assert made[0] != made[1]
    server.wait_for(message="answered", request_id=made[1])

    status, headers = server.ask({"inputs": [[1]]}, X_Request_ID="mine-3")
    assert (status, headers["x-request-id"]) == (400, "mine-3")
    refused = server.wait_for(request_id="mine-3", level="warning", code="wrong_shape")
    assert "length >= 2" in refused["message"]
    tensor = {"inputs": [TENSOR["inputs"][0] | {"shape": [1, 3]}]}
    status, headers = server.ask(tensor, "/v2/models/small/infer", X_Request_ID="mine-4")
    assert (status, headers["x-request-id"]) == (400, "mine-4")

    deadline = time.monotonic() + 30
    while not {f"mine-{number}" for number in range(1, 5)} <= _traced(collector):
        assert time.monotonic() < deadline, _traced(collector)
        time.sleep(0.05)
    names = sorted(span.name for span in collector.spans if span.trace_id.hex() == TRACE)
    assert names == ["decode", "encode", "inference", "predict small"]

    (worker,) = workers_of(server.process.pid)
    worker.kill()
    server.wait_for(message=f"worker {worker.pid} ended by itself", level="warning")
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    keys = {"time", "level", "logger", "message"}
    assert all(keys <= event.keys() for event in server.events())  # to the last line


def _traced(collector: Collector) -> set[str]:
    spans = list(collector.spans)
    return {collector.attributes(span).get("skipserve.request_id", "") for span in spans}


def test_an_error_of_the_start_is_an_event_too(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "skipserve.cli", "serve", "--model-store", str(tmp_path)],
        env={**os.environ, "SKIPSERVE_LOG_FORMAT": "json"},
        capture_output=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "holds no .mar" in json.loads(line)["message"]


FORKED = """
import os, sys
from pathlib import Path
from skipserve.telemetry.series import REQUESTS
REQUESTS.labels("m", "200").inc()
child = os.fork()
REQUESTS.labels("m", "200").inc(2)
if not child:
    os._exit(0)
os.waitpid(child, 0)
folder = Path(os.environ["PROMETHEUS_MULTIPROC_DIR"])
names = sorted(int(file.stem.rpartition("_")[2]) for file in folder.glob("counter_*.db"))
assert names == sorted([os.getpid(), child]), names
from prometheus_client import CollectorRegistry, multiprocess
registry = CollectorRegistry()
multiprocess.MultiProcessCollector(registry)
print(registry.get_sample_value("skipserve_requests_total", {"model": "m", "code": "200"}))
"""


def test_a_forked_worker_counts_in_files_of_its_own(tmp_path):
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True
    )
    assert done.stdout == "5.0\n", done.stderr
