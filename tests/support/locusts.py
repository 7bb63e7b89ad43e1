"""Locust with our locustfile, as its users start it."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from running import ROOT

from skipserve.address import Address


def locust(address: Address, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "locust", "-f", str(ROOT / "loadtest" / "locustfile.py")),
        *("--host", f"http://127.0.0.1:{address.port}"),
        *("--service-metrics", f"http://127.0.0.1:{address.metrics_port}/metrics"),
        *("--model", "small", "--arrivals", "constant", "--rate", "40", "--seconds", "2"),
        *("-u", "8", "-r", "8", *options),
    ]


@contextlib.contextmanager
def web_page(project: Path, address: Address) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        locust(address, "--web-host", "127.0.0.1", "--web-port", str(port)),
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
