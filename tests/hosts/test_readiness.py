"""Readiness: the host answers, and the workers of every model are alive."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pulsing import worker
from running import until

from skipserve.artifacts.archive import Unpacked
from skipserve.direct import answers
from skipserve.hosts.host import Host
from skipserve.hosts.instance import Instance
from skipserve.hosts.processes import children
from skipserve.hosts.pulse import BEAT_S, living
from skipserve.hosts.readiness import SILENT_S, Readiness, WorkerRequirement
from skipserve.telemetry.exposition import Exposition

PATIENCE_S = 60.0
Make = Callable[..., Readiness]


class ThisProcess:
    """A host whose workers this process started, with a frontend beside them."""

    name = "TorchServe"

    def __init__(self, url: str) -> None:
        self._url = url

    def start(self, models: Sequence[Unpacked]) -> None:
        """It runs already."""

    def ready(self) -> bool:
        return answers(f"{self._url}/ping")

    def workers(self) -> set[int]:
        return children(os.getpid())

    def ended(self) -> str:
        return ""

    def successor(self, instance: Instance) -> Host:
        raise NotImplementedError

    def retire(self, stop: threading.Event) -> None:
        """Its fixture ends it."""

    def close(self) -> None:
        """Its fixture ends it."""


class Beside(ThisProcess):
    """Another host, with workers of its own."""

    def __init__(self, url: str, workers: set[int]) -> None:
        super().__init__(url)
        self.pids = workers

    def workers(self) -> set[int]:
        return self.pids


@pytest.fixture
def frontend() -> Iterator[HTTPServer]:
    """Answers a ping, as TorchServe's does where workers are missing."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(500 if self.path == "/ping" else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def pulses(tmp_path: Path) -> Path:
    for name in ("pulses", "metrics"):
        (tmp_path / name).mkdir()
    return tmp_path / "pulses"


@pytest.fixture
def ready() -> threading.Event:
    return threading.Event()


@pytest.fixture
def metrics(pulses: Path) -> Exposition:
    return Exposition(pulses.parent / "metrics")


@pytest.fixture
def make(frontend: HTTPServer, pulses: Path, ready: threading.Event, metrics: Exposition) -> Make:
    def made(silent_s: float = SILENT_S) -> Readiness:
        return Readiness(
            ThisProcess(f"http://127.0.0.1:{frontend.server_port}"),
            pulses,
            {"small": WorkerRequirement(1, silent_s)},
            metrics,
            ready,
            PATIENCE_S,
        )

    return made


def look(readiness: Readiness, now_s: float) -> str:
    return readiness.look(now_s, lambda: False)


def test_it_is_ready_while_its_worker_lives(make, pulses, ready, caplog):
    readiness = make()
    assert readiness.missing() == "0 of 1 workers of small are there"
    with worker(pulses):
        assert readiness.missing() == ""
        assert look(readiness, 0.0) == ""
        assert ready.is_set()
    assert look(readiness, 1.0) == ""
    assert not ready.is_set()
    assert caplog.text.count("0 of 1 workers of small are there") == 1
    look(readiness, 2.0)
    assert caplog.text.count("0 of 1 workers of small are there") == 1  # said once
    with worker(pulses):
        look(readiness, 3.0)
        assert ready.is_set()
        assert "ready again" in caplog.text
        assert not readiness.look(4.0, lambda: True)


def test_it_never_gets_ready_while_it_stops(make, pulses, ready):
    with worker(pulses):
        make().look(0.0, lambda: True)
        assert not ready.is_set()


def test_a_worker_that_does_not_come_back_is_not_waited_for_for_ever(make, pulses):
    readiness = make()
    with worker(pulses):
        assert look(readiness, 0.0) == ""
    assert look(readiness, 1.0) == ""
    assert look(readiness, PATIENCE_S) == ""
    said = look(readiness, PATIENCE_S + 1.0)
    assert said == "small lost a worker and none came back in 60 s"


def test_one_that_comes_back_in_time_is(make, pulses):
    readiness = make()
    with worker(pulses):
        look(readiness, 0.0)
    look(readiness, PATIENCE_S - 1)
    with worker(pulses):
        assert look(readiness, PATIENCE_S + 1) == ""
    assert look(readiness, 2 * PATIENCE_S) == ""


def test_a_worker_that_hangs_is_not_ready(make, pulses, ready, caplog):
    readiness = make(silent_s=2 * BEAT_S)
    with worker(pulses) as process:
        look(readiness, 0.0)
        assert ready.is_set()
        process.send_signal(signal.SIGSTOP)
        until(lambda: living(pulses)[0].silent_s > 2 * BEAT_S)
        look(readiness, 1.0)
        assert not ready.is_set()
        assert f"worker {process.pid} of small is stopped or hangs" in caplog.text


def test_a_frontend_that_answers_nothing_is_not_ready(make, pulses, ready, frontend):
    readiness = make()
    with worker(pulses):
        look(readiness, 0.0)
        frontend.server_close()
        look(readiness, SILENT_S)
        assert ready.is_set()  # it may just be busy
        look(readiness, SILENT_S + 1)
        assert not ready.is_set()


def test_a_worker_that_died_before_anybody_looked_is_counted_once(make, pulses, ready, metrics):
    dead = subprocess.Popen(["true"])
    dead.wait()
    (pulses / f"small.{dead.pid}").touch()
    for kind in ("counter", "gauge_livemax"):
        (pulses.parent / "metrics" / f"{kind}_{dead.pid}.db").touch()
    readiness = make()
    assert readiness.missing() == "0 of 1 workers of small are there"
    for now_s in range(3):
        look(readiness, float(now_s))
    assert not ready.is_set()
    assert list((pulses.parent / "metrics").iterdir()) == []
    assert b"skipserve_worker_restarts_total 1.0" in metrics.text()[0]


@pytest.mark.parametrize(("limit_s", "silent_s"), [(2, 10), (60, 10), (300, 50)])
def test_a_model_that_takes_its_time_is_given_it(limit_s, silent_s):
    assert WorkerRequirement.of(1, limit_s) == WorkerRequirement(1, silent_s, limit_s + 10)


def test_workers_of_a_host_that_comes_and_of_one_that_goes_are_not_missed(
    frontend, pulses, ready, metrics, caplog
):
    def files(pid: int) -> Path:
        file = pulses.parent / "metrics" / f"counter_{pid}.db"
        file.touch()
        return file

    url = f"http://127.0.0.1:{frontend.server_port}"
    old, new = Beside(url, {11, 12}), Beside(url, {21})
    wanted = {"small": WorkerRequirement(0, SILENT_S)}
    readiness = Readiness(old, pulses, wanted, metrics, ready, PATIENCE_S)
    before, after = [files(11), files(12)], [files(21)]
    readiness.expect(new)
    look(readiness, 0.0)
    new.pids = {21, 22}
    after.append(files(22))
    look(readiness, 1.0)
    readiness.follow(new, pulses, wanted)
    look(readiness, 2.0)
    assert all(file.exists() for file in (*before, *after))
    old.pids = {12}
    look(readiness, 3.0)
    old.pids = set()
    readiness.expect(None)
    look(readiness, 4.0)
    assert ready.is_set()
    assert not any(file.exists() for file in before)
    assert all(file.exists() for file in after)
    assert "ended by itself" not in caplog.text
    new.pids = {22}
    look(readiness, 5.0)
    assert "worker 21 ended by itself" in caplog.text
    assert b"skipserve_worker_restarts_total 1.0" in metrics.text()[0]


def test_workers_of_a_host_that_never_served_are_not_missed_though_nobody_saw_them(
    frontend, pulses, ready, metrics, caplog
):
    url = f"http://127.0.0.1:{frontend.server_port}"
    serving, failing = Beside(url, {11}), Beside(url, set())
    wanted = {"small": WorkerRequirement(0, SILENT_S)}
    readiness = Readiness(serving, pulses, wanted, metrics, ready, PATIENCE_S)
    (pulses.parent / "metrics" / "counter_11.db").touch()
    look(readiness, 0.0)
    readiness.expect(failing)
    for pid in (21, 22):
        (pulses.parent / "metrics" / f"counter_{pid}.db").touch()
        if pid == 21:
            look(readiness, 1.0)
    readiness.expect(None)
    look(readiness, 2.0)
    assert ready.is_set()
    assert [file.name for file in (pulses.parent / "metrics").iterdir()] == ["counter_11.db"]
    assert "ended by itself" not in caplog.text
    assert b"skipserve_worker_restarts_total 0.0" in metrics.text()[0]
    # The alarm for restarts is of those that serve, also while another host is expected.
    readiness.expect(failing)
    serving.pids = set()
    look(readiness, 3.0)
    assert "worker 11 ended by itself" in caplog.text
