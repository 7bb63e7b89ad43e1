"""Unusual machines: proxies, IPv6, odd or cleaned folders."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import urllib.request
from http.client import HTTPConnection
from pathlib import Path
from urllib.error import HTTPError

import psutil
import pytest
from environments import MODEL
from running import cli, free_ports, serving, until
from small_project import build

from skipserve.artifacts.archive import unpack
from skipserve.errors import ArtifactError

PROXY = {"http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9", "no_proxy": ""}
BODY = b'{"inputs": [[0.5, -0.25]]}'
pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("project")
    (root / "export").mkdir()
    (root / "export" / "small.toml").write_text(MODEL)
    build(root)
    return root


def ask(host: str, port: int) -> int:
    connection = HTTPConnection(host, port, timeout=60)
    with contextlib.closing(connection):
        headers = {"Content-Type": "application/json"}
        connection.request("POST", "/predictions/small", BODY, headers)
        return connection.getresponse().status


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return reply.status
    except HTTPError as error:
        return error.code


def run(project: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cli(*arguments),
        cwd=project,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_behind_a_proxy_with_a_long_folder_no_home_and_on_every_address(project, tmp_path):
    long = tmp_path / ("lü文" * 15)  # of 90 bytes
    long.mkdir()
    with serving(project, "--host", "::", environment={**PROXY, "TMPDIR": str(long)}) as running:
        assert "serving small at http://[::1]:" in running.printed
        assert f"TMPDIR={long}: " in running.printed
        assert list(long.iterdir()) == []
        for host in ("127.0.0.1", "::1"):
            assert ask(host, running.port) == 200
            connection = HTTPConnection(host, running.metrics_port, timeout=20)
            with contextlib.closing(connection):
                connection.request("GET", "/ready")
                assert connection.getresponse().status == 200
        port = str(running.metrics_port)
        for options in (("--host", "::1", "--metrics-port", port), (f"http://[::1]:{port}",)):
            seen = run(project, "top", "--once", "--interval", "0.1", *options, **PROXY)
            assert seen.returncode == 0, seen.stderr
            assert "small" in seen.stdout
        said = run(project, "router", "status", "--metrics-port", port, TMPDIR=str(long))
        assert said.stdout == "small: no router\n"


def test_on_an_ipv6_address_alone_the_printed_line_and_a_load_test_work(project):
    with serving(project, "--host", "[::1]", environment={"HOME": ""}) as running:
        command = next(line for line in running.printed.splitlines() if line.startswith("curl"))
        done = subprocess.run(
            ["bash", "-c", f"{command} -s --noproxy '*'"], capture_output=True, check=True
        )
        assert b'"outputs"' in done.stdout
        with pytest.raises(ConnectionRefusedError):
            ask("127.0.0.1", running.port)
        loaded = run(
            project,
            *("loadtest", "--host", "::1", "--port", str(running.port)),
            *("--metrics-port", str(running.metrics_port), "--model", "small"),
            *("--users", "2", "--duration", "1", "--no-baseline", "--slo", "errors=0"),
            **PROXY,
        )
        assert "errors" in loaded.stdout, loaded.stderr
        assert "FAIL    errors" not in loaded.stdout


def test_a_stopped_worker_and_a_stopped_frontend_are_not_ready(project, host):
    with serving(project, host=host) as running:
        url = f"http://127.0.0.1:{running.metrics_port}/ready"
        (worker,) = running.workers()
        (frontend,) = psutil.Process(running.process.pid).children()
        stopped = [(worker, "is stopped or hangs")]
        if host == "torchserve":  # granian's main process answers nobody, its workers do
            stopped.append((frontend, "answers nothing"))
        assert status(url) == 200
        for process, _ in stopped:
            process.suspend()
        # The worker is told of first, and what else is silent once it goes on.
        for process, says in stopped:
            until(lambda said=says: said in running.printed and status(url) == 503)
            process.resume()
        until(lambda: status(url) == 200)
        assert ask("127.0.0.1", running.port) == 200


def test_a_service_whose_folder_was_cleaned_ends_with_one_line(project, place):
    with serving(project, environment={"TMPDIR": str(place)}) as running:
        family = running.descendants()
        for entry in next(place.iterdir()).iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        assert running.process.wait(60) == 2
        said = (project / f"serve.{running.port}.log").read_text().splitlines()[-1]
        assert said.startswith("error: files of the running service are gone")
    assert psutil.wait_procs(family, timeout=30)[1] == []
    assert list(place.iterdir()) == []


def test_what_a_killed_launcher_left_is_not_commanded_and_goes_at_the_next_start(project, place):
    environment = {"TMPDIR": str(place)}
    with serving(project, environment=environment) as running:
        port = str(running.metrics_port)
        found = run(project, "router", "status", "--metrics-port", port, **environment)
        assert found.stdout == "small: no router\n"
        family = running.descendants()
        running.process.kill()
        assert psutil.wait_procs(family, timeout=30)[1] == []
    (left,) = place.iterdir()
    done = run(project, "router", "off", "small", "--metrics-port", port, **environment)
    assert done.returncode == 2
    assert "no service of this user has its metrics on port" in done.stderr
    with serving(project, environment=environment) as running:
        (fresh,) = place.iterdir()
        assert fresh != left
        assert f"removed {left}" in running.printed


def test_many_signals_at_once_end_it_as_one_does(project):
    with serving(project) as running:
        family = running.descendants()
        (main,) = psutil.Process(running.process.pid).children()
        running.process.kill()
        for _ in range(200):  # each may come while the last one is dealt with
            with contextlib.suppress(psutil.NoSuchProcess):
                main.terminate()
        assert psutil.wait_procs(family, timeout=30)[1] == []


def test_no_folder_to_write_to_is_one_line_at_once(project):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    read_only = (
        "for d in /tmp /var/tmp /dev/shm; do mount --bind $d $d && mount -o remount,bind,ro $d"
    )
    port, metrics_port = free_ports()
    command = cli("serve", "--port", str(port), "--metrics-port", str(metrics_port))
    environment = {key: value for key, value in os.environ.items() if key != "HOME"}
    done = subprocess.run(
        [*namespace, "bash", "-c", f'{read_only} || exit 99; done; exec "$@"', "bash", *command],
        cwd=project,
        env={**environment, "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    if done.returncode == 99:
        pytest.skip("this machine lets nobody remount")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "TMPDIR=/tmp: Read-only file system" in done.stderr
    assert "set TMPDIR" in done.stderr


UNPACK = """
import resource, sys
from pathlib import Path
from skipserve.artifacts.archive import unpack
limit = getattr(resource, sys.argv[3])
resource.setrlimit(limit, (int(sys.argv[4]), resource.getrlimit(limit)[1]))
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]), {})
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("limit", "value", "says"),
    [
        ("RLIMIT_FSIZE", 1000, "File too large"),  # what a full disk is, for whoever is not root
        ("RLIMIT_NOFILE", 3, "Too many open files"),
    ],
)
def test_an_archive_that_the_machine_cannot_take_is_not_called_damaged(
    project, tmp_path, limit, value, says
):
    assert hasattr(resource, limit)
    archive = project / "model_store" / "small.mar"
    done = subprocess.run(
        [sys.executable, "-c", UNPACK, str(archive), str(tmp_path), limit, str(value)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith(f"LaunchError {archive} cannot be unpacked"), done.stdout
    assert says in done.stdout
    assert "damaged" not in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_an_archive_on_a_full_disk_is_one_line(project, tmp_path):
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine gives no user namespaces")
    folder = tmp_path / "full"
    folder.mkdir()
    port, metrics_port = free_ports()
    command = cli("serve", "--port", str(port), "--metrics-port", str(metrics_port))
    mount = 'mount -t tmpfs -o size=16k none /dev/shm && exec "$@"'
    done = subprocess.run(
        [*namespace, "sh", "-c", mount, "sh", *command],
        cwd=project,
        env={**os.environ, "TMPDIR": "/dev/shm"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "TMPDIR" in done.stderr
    assert "damaged" not in done.stderr
    # What another service had left before is told of, too.
    left = "warning skipserve.hosts.directory removed "
    assert len([line for line in done.stderr.splitlines() if left not in line]) == 1


def test_an_archive_that_is_not_there_is_not_called_damaged(tmp_path):
    with pytest.raises(ArtifactError, match="is not there"):
        unpack(tmp_path / "small.mar", tmp_path / "store", {})


def test_a_host_of_another_machine_names_the_option(project):
    port, metrics_port = free_ports()
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    done = run(project, "serve", "--host", "2001:db8::1", *ports)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "set --host to an address of this machine" in done.stderr
