"""A `skipserve serve` process, seen by its clients and its operator."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import psutil

ROOT = Path(__file__).parents[2]
JSON = {"Content-Type": "application/json"}
# In place of a status: the connection ended without an answer.
CLOSED = 0


def cli(*arguments: str, python: str = sys.executable) -> list[str]:
    return [python, "-m", "skipserve.cli", *arguments]


def free_ports() -> tuple[int, int]:
    while True:
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            port, metrics = one.getsockname()[1], two.getsockname()[1]
        if port < 65_000 and metrics != port + 2:
            return port, metrics


def workers_of(launcher: int) -> list[psutil.Process]:
    """The processes that hold models below a launcher, whatever the host."""
    found = []
    for host in psutil.Process(launcher).children():
        for process in host.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if "resource_tracker" not in " ".join(process.cmdline()):
                    found.append(process)
    return found


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for what is counted after the reply is sent."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(HTTPError):
            if condition():
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


@dataclass
class Running:
    """A `skipserve serve` process that has said it is ready."""

    process: subprocess.Popen[bytes]
    port: int
    metrics_port: int
    log: Path
    host: str

    @property
    def printed(self) -> str:
        """What it has written to stdout and stderr."""
        return self.log.read_text()

    def ask(
        self, model: str, body: Any, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], Any]:
        sent = JSON if headers is None else headers
        status, received, content = self.send("POST", f"/predictions/{model}", body, **sent)
        return status, received, json.loads(content)

    def send(
        self, method: str, path: str, body: object = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Any request; names of headers come back in lower case, as a reply may have them."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, content, sent)
            reply = connection.getresponse()
            return reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()

    def outcome(self, model: str, body: Any) -> int:
        """The status of a request; :data:`CLOSED` if its connection ended without one."""
        try:
            return self.send("POST", f"/predictions/{model}", body, **JSON)[0]
        except TimeoutError:
            raise
        except (HTTPException, OSError):
            return CLOSED

    def get(self, path: str) -> str:
        url = f"http://127.0.0.1:{self.metrics_port}{path}"
        with urllib.request.urlopen(url, timeout=30) as reply:
            content: bytes = reply.read()
            return content.decode()

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/ready") == "ready\n"
        return False

    def requests_total(self, model: str, code: int) -> float:
        pattern = rf'skipserve_requests_total{{code="{code}",model="{model}"}} (\S+)'
        return sum(float(value) for value in re.findall(pattern, self.get("/metrics")))

    def restarts(self) -> float:
        found = re.search(r"^skipserve_worker_restarts_total (\S+)", self.get("/metrics"), re.M)
        assert found is not None
        return float(found[1])

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        return workers_of(self.process.pid)

    def kill_workers(self) -> int:
        workers = self.workers()
        for worker in workers:
            worker.kill()
        return len(workers)


@contextlib.contextmanager
def until_ready(process: subprocess.Popen[bytes], log: Path) -> Iterator[None]:
    """Wait until a service has said in its log that it is ready; ends it afterwards."""
    try:
        while "\nready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def serving(
    project: Path,
    *options: str,
    host: str = "granian",
    environment: dict[str, str] | None = None,
    python: str = sys.executable,
    at: tuple[int, int] | None = None,
) -> Iterator[Running]:
    port, metrics_port = at or free_ports()
    log = project / f"serve.{port}.log"
    ports = ("--port", str(port), "--metrics-port", str(metrics_port))
    with log.open("w") as output:
        process = subprocess.Popen(
            cli("serve", "--server", host, *ports, *options, python=python),
            cwd=project,
            env={**os.environ, **(environment or {})},
            stdout=output,
            stderr=output,
        )
    with until_ready(process, log):
        yield Running(process, port, metrics_port, log, host)


def serve_with(project: Path, copy: Path, *settings: str) -> Path:
    """A copy of a project whose ``moons_residual`` has other settings; of one archive."""
    (copy / "model_store").mkdir(parents=True)
    shutil.copytree(project / "artifacts", copy / "artifacts")
    (copy / "export").mkdir()
    text = (project / "export" / "moons_residual.toml").read_text()
    text = text.replace("[serving]", "\n".join(["[serving]", *settings]))
    (copy / "export" / "moons_residual.toml").write_text(text)
    package = cli("package", "export/moons_residual.toml")
    subprocess.run(package, cwd=copy, check=True, capture_output=True)
    return copy


def question(row: Any) -> Any:
    return {"inputs": {name: [value] for name, value in row["inputs"].items()}}


def example(project: Path, model: str) -> Any:
    return json.loads((project / "artifacts" / model / "manifest.json").read_text())["example"]
