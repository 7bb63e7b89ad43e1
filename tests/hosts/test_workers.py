"""Workers that die, hang and restart, behind each host; no client waits for ever."""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil
import pytest
from hosts import can
from running import CLOSED, JSON, Running, serve_with, serving, until

MODEL = "moons_residual"
BODY = {"inputs": [[0.5, 0.5]]}
DIED = "a request whose worker dies is answered"
pytestmark = pytest.mark.server


def lost(host: str) -> set[int]:
    """What a request may get whose worker dies."""
    return {500, 503, 507} if can(host, DIED) else {CLOSED, 503}


@pytest.fixture(scope="module")
def fragile(project: Path, host: str) -> Iterator[Running]:
    """A server whose workers may be ended; each test waits until they are back."""
    with serving(project, MODEL, "--batch-size", "4", host=host) as running:
        yield running


def test_a_killed_worker_comes_back_and_loses_no_counts(fragile: Running) -> None:
    before, ended = fragile.requests_total(MODEL, 200), fragile.restarts()
    assert fragile.ask(MODEL, BODY)[0] == 200
    until(lambda: fragile.requests_total(MODEL, 200) == before + 1)
    workers = fragile.kill_workers()
    until(lambda: fragile.restarts() == ended + workers)
    until(fragile.is_ready)
    assert fragile.ask(MODEL, BODY)[0] == 200
    # The service asks once more when nobody looks: not here, a worker that comes back warms itself.
    until(lambda: fragile.requests_total(MODEL, 200) == before + 2)


def test_every_request_gets_its_own_answer_while_a_worker_dies_again_and_again(
    fragile: Running,
) -> None:
    stop = threading.Event()
    named = can(fragile.host, "`X-Request-ID` of the client in the reply")

    def statuses(client: int) -> set[int]:
        """One connection kept open: an answer too many would be taken for the next one's."""
        seen = set()
        connection = HTTPConnection("127.0.0.1", fragile.port, timeout=60)
        with contextlib.closing(connection):
            for i in itertools.count():
                if stop.is_set():
                    return seen
                name = f"client-{client}-{i}"
                headers = {**JSON, "X-Request-ID": name}
                try:
                    path = f"/predictions/{MODEL}"
                    connection.request("POST", path, json.dumps(BODY), headers)
                    reply = connection.getresponse()
                    reply.read()
                except TimeoutError:
                    raise
                except (HTTPException, OSError):
                    connection.close()
                    seen.add(CLOSED)
                    time.sleep(0.01)  # nobody listens while the host starts a worker
                else:
                    if named:
                        assert reply.status != 200 or reply.getheader("X-Request-ID") == name
                    seen.add(reply.status)
        raise AssertionError

    ended = fragile.restarts()
    with ThreadPoolExecutor(16) as clients:
        asking = [clients.submit(statuses, client) for client in range(16)]
        try:
            for death in (1, 2):
                time.sleep(0.3)
                assert fragile.kill_workers() == 1
                until(lambda n=death: fragile.restarts() == ended + n)  # type: ignore[misc]
                until(fragile.is_ready)
            time.sleep(0.3)
        finally:
            stop.set()  # or the clients would ask for ever
        seen = [client.result(timeout=60) for client in asking]
    assert all(200 in statuses for statuses in seen)
    assert set.union(*seen) - {200} <= lost(fragile.host)


def test_a_worker_that_dies_while_it_loads_is_started_again(fragile: Running) -> None:
    def fresh(old: set[int]) -> bool:
        return any(worker.pid not in old for worker in fragile.workers())

    for _ in range(2):
        before = {worker.pid for worker in fragile.workers()}
        fragile.kill_workers()
        until(lambda old=before: fresh(old))  # type: ignore[misc]
    assert fragile.kill_workers() == 1
    # Not ready since the first death: nothing has opened the model meanwhile.
    until(fragile.is_ready)
    assert fragile.ask(MODEL, BODY)[0] == 200


def test_what_is_kept_waiting_ends_when_a_stopped_worker_goes_on(fragile: Running) -> None:
    (worker,) = fragile.workers()
    worker.suspend()
    with ThreadPoolExecutor(1) as client:
        waiting = client.submit(fragile.outcome, MODEL, BODY)
        until(lambda: not fragile.is_ready())
        worker.resume()
        assert waiting.result() == 200
    until(fragile.is_ready)


@pytest.mark.parametrize("workers", [1, 2])
def test_requests_whose_batch_was_being_gathered_end_when_workers_die(
    project: Path, host: str, workers: int
) -> None:
    options = ("--batch-size", "16", "--max-batch-delay-ms", "2000", "--workers", str(workers))
    with (
        serving(project, MODEL, *options, host=host) as running,
        ThreadPoolExecutor(4) as clients,
    ):
        waiting = [clients.submit(running.outcome, MODEL, BODY) for _ in range(4)]
        until(lambda: connections(running) >= 4)
        assert running.kill_workers() == workers
        assert {reply.result() for reply in waiting} <= lost(host)
        # A frontend that has not noticed the second death yet hands it one more request.
        until(lambda: running.outcome(MODEL, BODY) == 200)


def connections(running: Running) -> int:
    """Clients that whoever holds the port has accepted."""
    found = 0
    for process in running.descendants():
        with contextlib.suppress(psutil.NoSuchProcess):
            found += sum(
                one.status == psutil.CONN_ESTABLISHED and one.laddr.port == running.port
                for one in process.net_connections("tcp")
            )
    return found


def test_hundreds_of_requests_on_their_way_end_when_the_worker_dies(
    project: Path, host: str
) -> None:
    options = ("--batch-size", "4096", "--max-batch-delay-ms", "5000")
    body = b'{"inputs": [[0.5, 0.5]]}'
    request = (
        b"POST /predictions/moons_residual HTTP/1.1\r\nHost: here\r\nConnection: close\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    with serving(project, MODEL, *options, host=host) as running, contextlib.ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 60))
            for _ in range(200)
        ]
        for connection in waiting:
            connection.sendall(request)
        time.sleep(1)
        assert running.kill_workers() == 1
        # A slow frontend may not have had all of them; one that is lost is never answered.
        statuses = [status_on(connection) for connection in waiting]
        assert set(statuses) <= {200} | lost(host)
        assert statuses.count(200) < 100
        until(lambda: running.outcome(MODEL, BODY) == 200)


def status_on(connection: socket.socket) -> int:
    try:
        head = connection.recv(1 << 10)[9:12]
    except TimeoutError:
        raise
    except OSError:
        return CLOSED
    return int(head) if head else CLOSED


def test_a_worker_that_hangs_is_ended_and_started_again(
    project: Path, host: str, tmp_path: Path
) -> None:
    # A million rows take any machine longer than a second.
    settings = ("response_timeout_s = 1", "max_rows = 1000000")
    with serving(serve_with(project, tmp_path / "hanging", *settings), host=host) as running:
        many = b'{"inputs": [' + b",".join([b"[0.5, 0.5]"] * 1_000_000) + b"]}"
        assert running.outcome(MODEL, many) in lost(host)
        until(lambda: running.restarts() == 1)
        until(running.is_ready)
        assert running.ask(MODEL, BODY)[0] == 200
        # Where it was, of a worker that the kernel ended; else who ended it.
        assert "in answer" in running.printed or "did not respond in given time" in running.printed
