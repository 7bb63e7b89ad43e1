"""TorchServe's frontend: what is mended in it, what it is told, and how it ends.

That its mended classes do what they should is what test_serve.py shows.
"""

from __future__ import annotations

import importlib.util
import logging
import shutil
import signal
import threading
import zipfile
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import msgspec
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve.address import Address, free_ports
from skipserve.artifacts.artifact import Artifact
from skipserve.artifacts.serving import ServingConfig
from skipserve.errors import LaunchError
from skipserve.files import sha256_of
from skipserve.hosts.config import HostConfig
from skipserve.hosts.instance import Instance
from skipserve.hosts.launcher import Server
from skipserve.hosts.torchserve import host
from skipserve.hosts.torchserve.frontend import EDITS, SHA256, patch_frontend
from skipserve.hosts.torchserve.host import TorchServe
from skipserve.hosts.torchserve.packaging import model_config, package
from skipserve.telemetry.logs import Log

JAR = Path(importlib.util.find_spec("ts").origin).parent / "frontend" / "model-server.jar"
HANDLER = Path(__file__).parents[2] / "handlers" / "torchserve_handler.py"


def test_only_the_edits_change(tmp_path: Path) -> None:
    assert sha256_of(JAR) == SHA256
    patch_frontend(JAR, tmp_path)
    written = {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.class")}
    assert written == {edit.of for edit in EDITS}
    assert len(written) == len(EDITS)
    with zipfile.ZipFile(JAR) as archive:
        for edit in EDITS:
            original, mended = archive.read(edit.of), (tmp_path / edit.of).read_bytes()
            assert (original.count(edit.new), original.count(edit.old)) == (0, edit.times)
            assert (mended.count(edit.new), mended.count(edit.old)) == (edit.times, 0)
            assert mended.replace(edit.new, edit.old) == original


def test_another_frontend_is_left_as_it_is_and_one_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # The same classes, in another file: what calls them may be another.
    jar = tmp_path / "model-server.jar"
    shutil.copy(JAR, jar)
    with zipfile.ZipFile(jar, "a") as archive:
        archive.writestr("another", b"")
    with caplog.at_level(logging.WARNING):
        patch_frontend(jar, tmp_path / "classes")
    assert not (tmp_path / "classes").exists()
    (line,) = [record.getMessage() for record in caplog.records]
    assert f"{jar} is not TorchServe 0.12.0's and is left as it is" in line


@given(st.floats(0, 10_000))
def test_a_delay_is_whole_milliseconds_and_one_at_least(delay_ms: float) -> None:
    values = msgspec.json.decode(model_config(ServingConfig(max_batch_delay_ms=delay_ms)))
    told = values["maxBatchDelay"]
    assert isinstance(told, int)
    assert max(1, delay_ms) <= told < max(2, delay_ms + 1)
    assert values["skipserve"]["max_batch_delay_ms"] == delay_ms


@pytest.mark.parametrize("workers", [1, 3])
def test_requests_go_to_workers_in_turn(workers: int) -> None:
    values = msgspec.json.decode(model_config(ServingConfig(batch_size=8), workers))
    assert (values["minWorkers"], values["maxWorkers"]) == (workers, workers)
    assert values["batchSize"] == 8
    assert not {"asyncCommunication", "continuousBatching", "parallelLevel"} & set(values)


@pytest.mark.parametrize("name", ["::1", "[::1]", "::"])
def test_an_ipv6_address_is_refused_with_the_host_that_can(tmp_path: Path, name: str) -> None:
    with pytest.raises(LaunchError, match=r"^TorchServe cannot listen on the IPv6 address ::") as e:
        TorchServe(Instance(tmp_path), HostConfig(Address(name)), Log("text"))
    assert "--server granian" in str(e.value)
    assert "\n" not in str(e.value)


@pytest.fixture(scope="module")
def archive(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("store")
    return package(artifact.directory, HANDLER, ServingConfig(), store)


def serve(archive: Path) -> Server:
    return Server([archive], HostConfig(Address("127.0.0.1", *free_ports())), "torchserve")


def ask(server: Server, body: bytes) -> None:
    connection = HTTPConnection("127.0.0.1", server.address.port, timeout=60)
    connection.request("POST", "/predictions/small", body, {"Content-Type": "application/json"})
    connection.getresponse()


def frontend(port: int) -> psutil.Process:
    """The process that listens."""
    (found,) = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr.port == port
    }
    return psutil.Process(found)


@pytest.mark.server
def test_a_frontend_that_dies_ends_the_service_with_its_reason(archive: Path) -> None:
    with serve(archive) as server:
        frontend(server.address.port).send_signal(signal.SIGKILL)
        with pytest.raises(
            LaunchError, match=r"^TorchServe ended by itself \(status -9\): its log"
        ):
            server.wait(threading.Event())


@pytest.mark.server
def test_a_frontend_that_is_out_of_memory_ends_and_says_so(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It would go on with threads missing, without the flag for it.
    monkeypatch.setattr(host, "HEAP", "8m")
    with serve(archive) as server:
        with pytest.raises((OSError, HTTPException)):
            ask(server, b" " * 6_000_000)
        with pytest.raises(
            LaunchError, match=r"^TorchServe ended by itself \(its 8m heap is full\)"
        ):
            server.wait(threading.Event())
