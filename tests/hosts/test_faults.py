"""Faults of the machine and of its operator, injected into a running service under load."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from loading import CLIENTS, PATH, ROW, Load
from running import CLOSED, Running, cli, free_ports, serving, until, workers_of

from skipserve.hosts.granian.__main__ import import_ahead

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def root(routed_project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its batches may take a second, so that what hangs is noticed soon."""
    root = tmp_path_factory.mktemp("faulty") / "project"
    shutil.copytree(routed_project[0], root, ignore=shutil.ignore_patterns("*.log"))
    file = root / "export" / "small.toml"
    file.write_text(file.read_text().replace("[serving]", "[serving]\nresponse_timeout_s = 1"))
    package = cli("package", "export/small.toml")
    subprocess.run(package, cwd=root, check=True, capture_output=True)
    return root


def test_what_was_received_before_it_is_told_to_end_is_answered(root: Path) -> None:
    with serving(root, "--batch-size", "16") as running:
        with Load(running.port) as load:
            load.answered(500)
            running.process.send_signal(signal.SIGTERM)
            told_s = time.monotonic()
            assert running.process.wait(30) == 0
        before = [one.status for one in load.outcomes if one.sent_s < told_s]
        assert len(before) >= 500
        assert set(before) == {200}
        assert load.statuses <= {200, CLOSED}


def test_a_worker_that_is_killed_costs_only_what_it_had(root: Path) -> None:
    with serving(root, "--batch-size", "16", "--workers", "2") as running:
        with Load(running.port) as load:
            load.answered(300)
            first, other = running.workers()
            first.kill()
            # And the next one in its place, too, before anything is known of it.
            until(lambda: others(running, first, other))
            second = others(running, first, other)[0]
            second.kill()
            until(lambda: others(running, first, other, second))
            load.answered(300)
            until(running.is_ready)
            load.answered(300)
        lost = [one for one in load.outcomes if one.status != 200]
        # What was on its way in one of two workers, or waited at its socket.
        assert len(lost) <= 2 * CLIENTS
        assert other.pid in {one.pid for one in running.workers()}
        # What a worker imports was imported before it was born.
        (main,) = psutil.Process(running.process.pid).children()
        assert any("onnxruntime" in one.path for one in main.memory_maps())


def test_a_service_whose_workers_die_before_they_answer_does_not_start(root: Path) -> None:
    port, metrics_port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    with subprocess.Popen(
        cli("serve", "small", "--server", "granian", *ports),
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as starting:
        while starting.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                for worker in workers_of(starting.pid):
                    worker.kill()
            time.sleep(0.02)
        assert starting.stderr is not None
        said = starting.stderr.read()
    assert starting.returncode == 2, said
    assert "did not start" in said


def test_a_library_that_cannot_be_imported_ahead_is_left_to_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "without_cuda.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("gc.freeze", lambda: None)  # it would hide what other tests left behind
    import_ahead(["without_cuda", "json.nothing"])
    assert "without_cuda" not in sys.modules


def others(running: Running, *known: psutil.Process) -> list[psutil.Process]:
    """Workers that came in the place of others."""
    return [one for one in running.workers() if one.pid not in {old.pid for old in known}]


def test_a_worker_that_is_stopped_is_replaced_and_nobody_waits_for_ever(root: Path) -> None:
    with serving(root) as running:
        (worker,) = running.workers()
        worker.suspend()
        began_s = time.monotonic()
        with ThreadPoolExecutor(1) as client:
            waiting = client.submit(running.outcome, "small", json.loads(ROW))
            until(lambda: not running.is_ready())
            assert waiting.result() in (200, 503, CLOSED)
        until(lambda: running.restarts() == 1)
        until(running.is_ready)
        assert running.outcome("small", json.loads(ROW)) == 200
        assert worker.pid not in {one.pid for one in running.workers()}
        assert "is ended: it is stopped or hangs" in running.printed
        assert time.monotonic() - began_s < 60


def test_with_64_descriptors_a_hundred_connections_get_their_turn(
    root: Path, tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.write_text(f'#!/bin/sh\nulimit -n 64\nexec {sys.executable} "$@"\n')
    few.chmod(0o755)
    lines = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
    request = f"{lines}Connection: close\r\nContent-Length: {len(ROW)}\r\n\r\n".encode() + ROW
    with serving(root, python=str(few)) as running:
        (worker,) = running.workers()
        assert worker.rlimit(resource.RLIMIT_NOFILE)[0] == 64
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 60))
                for _ in range(100)
            ]
            for one in clients:
                one.sendall(request)
            assert all(one.recv(64).startswith(b"HTTP/1.1 200") for one in clients)
        assert running.restarts() == 0
        assert running.outcome("small", json.loads(ROW)) == 200
        until(running.is_ready)


def test_a_disk_that_fills_up_while_it_serves_stops_nobody(root: Path, place: Path) -> None:
    """The service's folder takes no byte more: metrics may fail, answers do not."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    disk, full = place / "disk", place / "full"
    disk.mkdir()
    mount = f"mount -t tmpfs -o size=48m none {disk}"
    start = f'TMPDIR={disk} exec {sys.executable} "$@"'
    full.write_text(f"#!/bin/sh\nexec {' '.join(namespace)} sh -c '{mount} && {start}' sh \"$@\"\n")
    full.chmod(0o755)
    with serving(root, python=str(full)) as running:
        (worker,) = running.workers()
        filler = Path(f"/proc/{worker.pid}/root{disk}") / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))
        with Load(running.port) as load:
            load.answered(300)
        assert load.statuses == {200}
        assert running.restarts() == 0
