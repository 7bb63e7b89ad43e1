"""The HAProxy configuration of deploy/haproxy/ before real services: what clients see of faults."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path

import pytest
from fuzz_client import Client, right
from fuzzing import Fuzzer
from loading import CLIENTS, PATH, ROW, Load
from running import JSON, ROOT, Running, free_ports, serving, until

pytestmark = pytest.mark.server
HAPROXY = shutil.which("haproxy") or "/usr/sbin/haproxy"
CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
# How many a rolling restart is tried with.
REQUESTS = int(os.environ.get("SKIPSERVE_ROLLING", "4000"))
Ports = tuple[int, int]


def at(*instances: Ports) -> tuple[int, dict[str, str]]:
    """A port for clients, and an environment in which the configuration knows the instances."""
    front, _ = free_ports()
    named = {"SKIPSERVE_FRONT": f"127.0.0.1:{front}"}
    for name, (port, metrics_port) in zip("AB", instances, strict=True):
        named[f"SKIPSERVE_{name}"] = f"127.0.0.1:{port}"
        named[f"SKIPSERVE_{name}_READY"] = str(metrics_port)
    return front, {**os.environ, **named}


@contextlib.contextmanager
def haproxy(*instances: Ports) -> Iterator[int]:
    """HAProxy before two instances, of which one may be nowhere; its port."""
    front, environment = at(*instances)
    process = subprocess.Popen([HAPROXY, "-db", "-f", str(CONFIGURATION)], env=environment)
    try:
        until(lambda: _connects(front) or process.poll() is not None)
        assert process.poll() is None
        yield front
    finally:
        process.terminate()
        process.wait(30)


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


def before(front: int) -> Running:
    """What clients of HAProxy ask; there is no process of ours behind it."""
    return Running(None, front, 0, Path(), "")  # type: ignore[arg-type]


def test_the_configuration_is_valid_as_it_stands() -> None:
    done = subprocess.run([HAPROXY, "-c", "-f", str(CONFIGURATION)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_where_no_instance_is_clients_are_told_to_come_back() -> None:
    with haproxy(free_ports(), free_ports()) as front:
        status, headers, body = before(front).send("POST", PATH, ROW, **JSON)
    assert (status, headers["retry-after"]) == (503, "1")
    assert headers["content-type"] == "application/json"
    assert json.loads(body)["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("begun", "status", "code"),
    [
        (b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 33554433\r\n\r\n", 413, "too_long"),
        (
            b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n"
            b"Content-Type: multipart/form-data; boundary=a\r\n\r\na=b",
            415,
            "unsupported_media_type",
        ),
        (b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 503, "unavailable"),
    ],
)
def test_what_haproxy_refuses_itself_has_our_shape_of_an_error(
    begun: bytes, status: int, code: str
) -> None:
    with (
        haproxy(free_ports(), free_ports()) as front,
        socket.create_connection(("127.0.0.1", front), 10) as connection,
    ):
        connection.sendall(begun)
        reply = HTTPResponse(connection)
        reply.begin()
        told = json.loads(reply.read())
    assert (reply.status, reply.getheader("content-type")) == (status, "application/json")
    assert told["error"].keys() == {"code", "message"}
    assert told["error"]["code"] == code


@pytest.fixture(scope="module")
def root(routed_project: tuple[Path, list[str]]) -> Path:
    return routed_project[0]


def test_a_killed_worker_closes_no_connection(root: Path) -> None:
    """Of one instance with two workers; whoever is not answered gets 503 and Retry-After."""
    with (
        serving(root, "--batch-size", "16", "--workers", "2") as running,
        haproxy((running.port, running.metrics_port), free_ports()) as front,
    ):
        with Load(front) as load:
            load.answered(300)
            workers = running.workers()
            workers[0].kill()
            until(lambda: running.restarts() == 1)
            until(running.is_ready)
            load.answered(300)
        assert load.statuses <= {200, 503}
        lost = [one for one in load.outcomes if one.status == 503]
        assert len(lost) <= CLIENTS
        assert all(one.retry_after == "1" for one in lost)
        good = len(load.outcomes) - len(lost)
        # What the worker had counted goes on; but for its last batch, whose counts come behind it.
        until(lambda: running.requests_total("small", 200) >= good - CLIENTS)
        assert workers[1].pid in {one.pid for one in running.workers()}


def test_a_lone_worker_that_is_killed_is_asked_again(root: Path) -> None:
    """And again: each connection that is closed without a reply becomes a question or a 503."""
    with (
        serving(root) as running,
        haproxy((running.port, running.metrics_port), free_ports()) as front,
    ):
        with Load(front) as load:
            for death in (1, 2):
                load.answered(100)
                assert running.kill_workers() == 1
                until(lambda n=death: running.restarts() == n)  # type: ignore[misc]
                until(running.is_ready)
            load.answered(100)
        assert load.statuses <= {200, 503}
        assert all(one.retry_after for one in load.outcomes if one.status == 503)


class Instance:
    """One of two, which can be started again in its place.

    Args:
        root: Project.
        host: It listens with.
    """

    def __init__(self, root: Path, host: str) -> None:
        self.place = free_ports()
        self._root, self._host = root, host
        self.start()

    def start(self) -> None:
        """Serve, and wait until it is ready."""
        self._stack = contextlib.ExitStack()
        served = serving(self._root, "--batch-size", "16", host=self._host, at=self.place)
        self.running = self._stack.enter_context(served)

    def end(self) -> None:
        """Tell it to end; it does, in order."""
        self.running.process.send_signal(signal.SIGTERM)
        assert self.running.process.wait(60) == 0
        self._stack.close()


@contextlib.contextmanager
def two(root: Path, host: str) -> Iterator[tuple[Instance, Instance]]:
    """Started at once."""
    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(lambda _: Instance(root, host), range(2))
    try:
        yield one, other
    finally:
        for instance in (one, other):
            if instance.running.process.poll() is None:
                instance.end()


def test_a_rolling_restart_loses_no_request(root: Path) -> None:
    with two(root, "granian") as instances:
        with haproxy(*(one.place for one in instances)) as front, Load(front) as load:
            for one in instances:
                load.answered(REQUESTS // 4)
                one.end()
                one.start()
            load.answered(max(0, REQUESTS - len(load.outcomes)))
        assert len(load.outcomes) >= REQUESTS
        assert load.statuses == {200}


def test_of_two_torchserves_one_may_be_told_to_end(root: Path) -> None:
    """Which drains nothing: whoever it leaves without a reply is answered by the other."""
    with two(root, "torchserve") as (one, other):
        with haproxy(one.place, other.place) as front, Load(front) as load:
            load.answered(300)
            one.end()
            load.answered(300)
        assert load.statuses <= {200, 503}
        lost = [one for one in load.outcomes if one.status == 503]
        assert len(lost) <= CLIENTS
        assert all(one.retry_after == "1" for one in lost)


def test_requests_that_are_nearly_right_harm_no_torchserve(root: Path) -> None:
    """Bodies and codes of what its frontend refuses are its own."""
    with (
        serving(root, "--batch-size", "16", host="torchserve") as running,
        haproxy((running.port, running.metrics_port), free_ports()) as front,
    ):
        clients = [Client(before(front), right(running)) for _ in range(2)]
        with ThreadPoolExecutor(2) as threads:
            asking = [
                threads.submit(client.run, Fuzzer(100 + seed).requests(500))
                for seed, client in enumerate(clients)
            ]
            for one in asking:
                one.result()
        bad = [one for client in clients for one in client.bad]
        assert not bad, bad[0]
        seen = sum((client.seen for client in clients), Counter[int]())
        assert seen[200] > 50, seen
        assert running.restarts() == 0
