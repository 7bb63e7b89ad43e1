"""Reloads of a serving granian, and versions side by side."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from archived import flip, remade
from command_line import CommandLine
from hosts import can
from loading import Unbroken
from running import JSON, Running, cli, free_ports, serving, until

from skipserve.address import Address
from skipserve.artifacts.manifest import MANIFEST
from skipserve.artifacts.versions import put, roll_back, versions_of
from skipserve.errors import LaunchError
from skipserve.hosts.config import HostConfig
from skipserve.hosts.control import find_router
from skipserve.hosts.instance import Instance
from skipserve.hosts.reloads import ask_to_reload
from skipserve.hosts.torchserve.host import TorchServe
from skipserve.telemetry.logs import Log

pytestmark = pytest.mark.server
BODY = json.dumps({"inputs": [[0.5, 0.5]]}).encode()
CLIENTS = 4
SIDE_BY_SIDE = "several versions of a model side by side"
WITHOUT_LOSS = "other archives without a lost request (`skipserve reload`, SIGHUP)"
REQUESTS = 2_000


@pytest.fixture(scope="module")
def store(routed_project: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with versions 1 to 3, the last in force; each test leaves it so."""
    root = tmp_path_factory.mktemp("reload")
    store = root / "model_store"
    store.mkdir()
    for number in (1, 2, 3):
        archive = routed_project[0] / "model_store" / "small.mar"
        put(remade(archive, root / "fresh.mar", number), store, "small")
    return store


@pytest.fixture(scope="module")
def server(store: Path) -> Iterator[Running]:
    with serving(store.parent, "small", "small@1", "--workers", "2") as running:
        yield running


def versions_told(server: Running) -> list[str]:
    told: list[str] = json.loads(server.send("GET", "/v2/models/small")[2])["versions"]
    return told


def pids(server: Running) -> set[int]:
    return {worker.pid for worker in server.workers()}


def test_versions_are_served_side_by_side(server: Running) -> None:
    assert can("granian", SIDE_BY_SIDE)
    assert versions_told(server) == ["1", "3"]
    for root in ("/v2/models/small", "/v2/models/small/versions/1"):
        about = json.loads(server.send("GET", root)[2])
        assert (about["name"], about["versions"]) == ("small", ["1", "3"])
    for version in ("1", "3"):
        for path, body in (
            (f"/predictions/small/{version}", BODY),
            (f"/v1/models/small/versions/{version}:predict", b'{"instances": [[0.5, 0.5]]}'),
        ):
            assert server.send("POST", path, body, **JSON)[0] == 200, path
    states = json.loads(server.send("GET", "/v1/models/small")[2])["model_version_status"]
    assert [one["version"] for one in states] == ["1", "3"]
    assert json.loads(server.send("GET", "/v1/models")[2])["models"] == ["small"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/models/small/versions/2"),
        ("POST", "/v2/models/small/versions/2/infer"),
        ("POST", "/v1/models/small/versions/2:predict"),
        ("POST", "/predictions/small/2"),
    ],
)
def test_a_version_that_is_not_served_is_told_which_are(
    server: Running, method: str, path: str
) -> None:
    status, _, content = server.send(method, path, BODY if method == "POST" else b"", **JSON)
    assert status == 404
    assert "version 2 of small is not served, only 1, 3" in content.decode()


def test_the_document_describes_every_version(server: Running) -> None:
    document = json.loads(server.send("GET", "/openapi.json")[2])
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            body = b""
            if method == "post":
                shown = told["requestBody"]["content"]["application/json"]["examples"]["row"]
                name = shown["$ref"].rpartition("/")[2]
                body = json.dumps(document["components"]["examples"][name]["value"]).encode()
            assert server.send(method.upper(), path, body, **JSON)[0] == 200, (method, path)
    assert all(re.fullmatch(r"[\w.-]+", name) for name in document["components"]["schemas"])


def test_what_is_counted_and_switched_is_of_one_version(server: Running) -> None:
    def counted() -> tuple[float, float]:
        found = [server.requests_total(model, 200) for model in ("small", "small@1")]
        return found[0], found[1]

    before = counted()
    for _ in range(3):
        assert server.send("POST", "/predictions/small/1", BODY, **JSON)[0] == 200
    until(lambda: counted() == (before[0], before[1] + 3))
    switch = find_router(server.metrics_port, "small@1")
    assert switch.set("disabled") == "on"
    try:
        assert find_router(server.metrics_port, "small").state() == "on"
        for path, router in (("/predictions/small/1", "off"), ("/predictions/small", "on")):
            reply = json.loads(server.send("POST", path, BODY, **JSON)[2])
            assert reply["router"] == router, path
    finally:
        switch.set("on")


def test_no_request_is_lost_and_never_is_it_not_ready(server: Running) -> None:
    assert can("granian", WITHOUT_LOSS)
    stop = threading.Event()
    kept, fresh = Unbroken(server, keep=True), Unbroken(server, keep=False)
    probes: list[bool] = []

    def probe() -> None:
        while not stop.wait(0.2):
            probes.append(server.is_ready())

    before, ended = pids(server), server.restarts()
    counted = server.requests_total("small", 200)
    with ThreadPoolExecutor(2 * CLIENTS + 1) as pool:
        clients = [pool.submit(load.run, stop) for load in (kept, fresh) for _ in range(CLIENTS)]
        clients.append(pool.submit(probe))
        try:
            said = ask_to_reload(server.metrics_port)
            until(lambda: kept.answered + fresh.answered >= REQUESTS)
        finally:
            stop.set()
        for client in clients:
            client.result()  # nobody was refused, and no connection ended before its answer
    assert said == "reloaded: serving small version 3, small version 1"
    assert set(kept.statuses) == set(fresh.statuses) == {200}
    assert kept.last >= CLIENTS  # they were told
    assert all(probes)
    assert len(pids(server)) == len(before) == 2
    assert not pids(server) & before
    assert server.restarts() == ended
    # Nor is a count: each of the new workers asked the example, with the router off and on.
    counted += kept.answered + fresh.answered + 4
    until(lambda: server.requests_total("small", 200) == counted)


def test_going_back_while_it_serves(server: Running, store: Path) -> None:
    assert roll_back(store, "small", 2) == (3, 2)
    assert versions_told(server) == ["1", "3"]
    server.process.send_signal(signal.SIGHUP)
    until(lambda: versions_told(server) == ["1", "2"])
    until(lambda: 'skipserve_model_version{model="small"} 2.0' in server.get("/metrics"))
    # Until the workers before have ended, they answer as well.
    until(lambda: server.send("POST", "/predictions/small/3", BODY, **JSON)[0] == 404)
    roll_back(store, "small", 3)
    assert "small version 3" in ask_to_reload(server.metrics_port)
    assert versions_told(server) == ["1", "3"]


def wrong_example(name: str, content: bytes) -> bytes:
    if name != MANIFEST:
        return content
    manifest = json.loads(content)
    manifest["example"]["answer"].reverse()
    return json.dumps(manifest).encode()


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("flipped", "small.mar is not an archive of this skipserve or is damaged"),
        ("exchanged", "plain.fp32.onnx is not the file the manifest describes"),
        ("example", "answers its own example otherwise than its manifest says"),
        ("gone", "holds no .mar"),
    ],
)
def test_what_cannot_be_opened_changes_nothing(
    server: Running, store: Path, tmp_path: Path, damage: str, says: str
) -> None:
    archive, whole = store / "small.mar", tmp_path / "whole.mar"
    shutil.copy(archive, whole)
    before, restarts = pids(server), server.restarts()

    def exchanged(name: str, content: bytes) -> bytes:
        return content + b" " if name == "plain.fp32.onnx" else content

    try:
        if damage == "flipped":
            flip(archive, "plain.fp32.onnx")
        elif damage == "exchanged":
            remade(whole, archive, 3, exchanged)
        elif damage == "example":
            remade(whole, archive, 3, wrong_example)
        else:
            archive.unlink()
        done = subprocess.run(
            cli("reload", "--metrics-port", str(server.metrics_port)),
            capture_output=True,
            text=True,
        )
    finally:
        shutil.copy(whole, archive)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: not reloaded, serving as before: ")
    assert says in line
    assert pids(server) == before
    until(server.is_ready)
    assert versions_told(server) == ["1", "3"]
    assert server.send("POST", "/predictions/small", BODY, **JSON)[0] == 200
    assert len(versions_of(store, "small")) == 3
    # Nor is what failed to start a worker that is missing.
    time.sleep(1.5)  # the service looks at its workers each second
    assert server.restarts() == restarts


def test_torchserve_says_in_one_line_that_it_cannot(tmp_path: Path) -> None:
    assert not can("torchserve", WITHOUT_LOSS)
    host = TorchServe(Instance(tmp_path), HostConfig(Address()), Log("text"))
    with pytest.raises(LaunchError, match="TorchServe cannot open other archives while it serves"):
        host.successor(Instance(tmp_path, 2))


def test_torchserve_serves_one_version(store: Path) -> None:
    assert not can("torchserve", SIDE_BY_SIDE)
    port, metrics_port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    done = subprocess.run(
        cli("serve", "small", "small@1", "--server", "torchserve", *ports),
        cwd=store.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "TorchServe serves one version of each model here, so small@1 cannot be" in line


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("small@7", "has no version 7 of small, only 3, 2, 1"),
        ("small@one", "small@one: expected NAME or NAME@VERSION, such as small@1"),
    ],
)
def test_a_version_that_is_not_there_is_one_line(
    store: Path, command_line: CommandLine, asked: str, says: str
) -> None:
    ended = command_line("serve", asked, folder=store.parent)
    assert ended.code == 2
    (line,) = ended.err.splitlines()
    assert says in line


def test_nothing_to_reload_is_one_line() -> None:
    with pytest.raises(LaunchError, match="no service of this user has its metrics on port 1 here"):
        ask_to_reload(1)
