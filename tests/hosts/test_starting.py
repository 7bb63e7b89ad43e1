"""Starting and stopping each host: errors are one line, and nothing is left behind."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from hosts import require
from running import CLOSED, Running, cli, free_ports, serving, until

from skipserve.artifacts.archive import unpack
from skipserve.artifacts.manifest import MANIFEST
from skipserve.errors import ArtifactError

BODY = {"inputs": [[0.5, 0.5]]}
pytestmark = pytest.mark.server


@pytest.mark.parametrize(
    ("host", "number"),
    [
        ("granian", signal.SIGTERM),
        ("granian", signal.SIGINT),
        ("torchserve", signal.SIGTERM),
    ],
    indirect=["host"],
)
def test_a_signal_stops_everything_and_leaves_nothing_behind(project, host, place, number):
    environment = {"TMPDIR": str(place)}
    with serving(project, "moons_plain", host=host, environment=environment) as running:
        family = running.descendants()
        assert len(family) >= 2
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
    assert psutil.wait_procs(family, timeout=5)[1] == []
    assert list(place.iterdir()) == []


def test_a_launcher_killed_outright_takes_its_host_with_it(project, host, place):
    environment = {"TMPDIR": str(place)}
    with serving(project, "moons_plain", host=host, environment=environment) as running:
        family = running.descendants()
        running.process.kill()
        assert psutil.wait_procs(family, timeout=30)[1] == []


def asked(running: Running, said: str) -> list[int]:
    """What requests get that wait for their batch to fill when the service is told to end."""
    with ThreadPoolExecutor(2) as clients:
        waiting = [clients.submit(running.outcome, "moons_residual", BODY) for _ in range(2)]
        while not all(one.running() for one in waiting) or not connected(running):
            pass
        running.process.send_signal(signal.SIGTERM)
        outcomes = [one.result() for one in waiting]
    assert running.process.wait(60) == 0, said
    return outcomes


def connected(running: Running) -> bool:
    """Whether both clients' requests have reached whoever holds the port."""
    found = [
        connection
        for process in running.descendants()
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.laddr.port == running.port
    ]
    return len(found) >= 2


def test_requests_on_their_way_are_answered_when_it_is_told_to_end(project, host):
    require(host, "requests on their way are answered when it is told to stop")
    with serving(project, "moons_residual", "--max-batch-delay-ms", "2000", host=host) as running:
        assert asked(running, "drained") == [200, 200]


def test_what_takes_longer_than_it_may_is_not_waited_for(project, host):
    # The first request of a start waits as long, too.
    options = ("--max-batch-delay-ms", "5000", "--drain-timeout", "1")
    with serving(project, "moons_residual", *options, host=host) as running:
        family = running.descendants()
        assert set(asked(running, "ended")) <= {CLOSED, 500, 503, 507}
        assert psutil.wait_procs(family, timeout=5)[1] == []


def test_of_two_that_start_at_once_on_one_port_one_is_refused(project, tmp_path):
    """Workers share a port, so the kernel would let two services share it too."""
    port, *metrics_ports = free_ports() + free_ports()[1:]
    logs = [tmp_path / str(metrics_port) for metrics_port in metrics_ports]
    both = []
    for log in logs:
        ports = ("--port", str(port), "--metrics-port", log.name)
        with log.open("w") as said:
            command = cli("serve", "moons_plain", *ports)
            both.append(subprocess.Popen(command, cwd=project, stdout=said, stderr=said))
    try:
        until(lambda: any(one.poll() is not None for one in both), seconds=120)
        (place,) = (i for i, one in enumerate(both) if one.poll() is not None)
        assert both[place].returncode == 2
        line = logs[place].read_text().splitlines()[-1]
        assert f"cannot listen on 127.0.0.1:{port} (Address already in use)" in line
        assert "set SKIPSERVE_PORT to another port" in line
        until(lambda: "\nready" in logs[1 - place].read_text(), seconds=120)
    finally:
        for one in both:
            one.terminate()
            one.wait(60)


def test_an_archive_of_another_version_is_named_with_its_remedy(project, refused, tmp_path):
    archive = tmp_path / "moons_plain.mar"
    with (
        zipfile.ZipFile(project / "model_store" / archive.name) as made,
        zipfile.ZipFile(archive, "w") as old,
    ):
        for name in made.namelist():
            content = made.read(name)
            if name == MANIFEST:
                content = json.dumps({**json.loads(content), "manifest_version": 1}).encode()
            old.writestr(name, content)
    for host in ("granian", "torchserve"):
        said = refused("--server", host, "--model-store", str(tmp_path))
        assert said.startswith(f"error: {archive}/{MANIFEST}: manifest_version is 1"), said
        assert "make it anew with `skipserve build export/moons_plain.toml`" in said


@pytest.mark.parametrize("damage", ["cut", *range(20), "foreign"])
def test_a_damaged_archive_is_refused_before_anything_starts(project, refused, tmp_path, damage):
    archive = tmp_path / "moons_plain.mar"
    content = bytearray((project / "model_store" / archive.name).read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage != "foreign":
        content[random.Random(damage).randrange(len(content))] ^= 0xFF
    else:
        content = bytearray(b"PK\x05\x06" + bytes(18))  # an empty zip file
    archive.write_bytes(content)
    try:
        unpack(archive, tmp_path / "store", {})
    except ArtifactError as error:
        assert any(word in str(error) for word in ("damaged", "is not the file", "build"))
        if damage == "cut":  # and before a JVM is
            said = refused("--server", "torchserve", "--model-store", str(tmp_path))
            assert said == f"error: {error}\n"
    else:
        assert damage not in ("cut", "foreign")  # a flipped time stamp or attribute is harmless


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--provider", "cuda"], "finds no usable CUDA device"),
        (["--backend", "tensorrt"], "is not one of 'onnxruntime', 'torchscript'"),
        (["--max-batch-delay-ms", "-1"], "--max-batch-delay-ms': '-1': expected at least 0"),
        (["--max-batch-delay-ms", "nan"], "--max-batch-delay-ms': 'nan': expected a finite number"),
        (["--max-wait-ms", "0"], "--max-wait-ms': 0: expected more than 0"),
        (["--precision", "int9"], "'int9' is not one of 'auto', 'fp32', 'fp16'"),
        (["--drain-timeout", "inf"], "--drain-timeout is inf; expected seconds"),
        (["--ready-timeout", "inf"], "--ready-timeout is inf; expected seconds"),
        (
            ["--metrics-port", "8080", "--port", "8080"],
            "--port and --metrics-port are both 8080; choose another",
        ),
        (["--tls-certificate", "here.pem"], "both --tls-certificate and --tls-key"),
        (["--tls-key", "here.pem"], "both --tls-certificate and --tls-key"),
        (
            ["--tls-certificate", "nowhere.pem", "--tls-key", "nowhere.pem"],
            "--tls-certificate nowhere.pem cannot be read (No such file or directory)",
        ),
        (
            ["--tls-certificate", "export/small.toml", "--tls-key", "export/small.toml"],
            "--tls-certificate export/small.toml is no PEM file",
        ),
    ],
)
def test_a_wrong_option_is_one_line_at_once(refused, options, says):
    assert says in refused(*options)


@pytest.mark.parametrize(
    "options",
    [
        ["--allow-origin", "https://example.org"],
        ["--tls-certificate", "here.pem", "--tls-key", "here.pem"],
    ],
)
def test_torchserve_is_told_at_once_what_it_cannot_do(project, refused, options):
    (project / "here.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    said = refused("--server", "torchserve", *options)
    assert "TorchServe is served without TLS and CORS here" in said
    assert "--server granian" in said
