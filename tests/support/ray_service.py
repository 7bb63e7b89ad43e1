"""A Ray cluster that serves, as its clients and its operator see it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from running import JSON

# A loaded machine takes its time to start the nine processes that replicas and proxies are.
START_S = 180
ENVIRONMENT = {
    **os.environ,
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ten seconds by default.
    "RAY_metrics_report_interval_ms": "1000",
}
# Whoever joins the cluster is at 127.0.0.1 as well, and does not look for an address of its own.
JOINS = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass
class Cluster:
    """A cluster that serves, as its clients and its operator see it."""

    process: subprocess.Popen[str]
    told: dict[str, Any]
    port: int
    store: Path

    def order(self, *words: str) -> None:
        """Have something done, and wait until it is."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(*words, file=self.process.stdin, flush=True)
        assert json.loads(self.process.stdout.readline())["done"] == words[0]

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, JSON)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/ready")[0] == 200
        except (OSError, HTTPException):
            return False

    def metrics(self) -> str:
        """What Ray's agents show, on every node."""
        texts = []
        for port in self.told["metrics"]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as reply:
                texts.append(reply.read().decode())
        return "\n".join(texts)

    def log(self) -> str:
        """What replicas and fronts wrote."""
        files = (Path(self.told["logs"]) / "logs").glob("worker-*.err")
        return "\n".join(file.read_text(errors="replace") for file in files)


def serve(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from ray.serve.scripts import cli; cli()", *arguments]
    return subprocess.run(
        command,
        env=ENVIRONMENT | JOINS | environment,
        capture_output=True,
        text=True,
        timeout=START_S,
    )
