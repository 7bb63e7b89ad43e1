"""Worker processes that hold a pulse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Waits for requests that never come; what it is sent on stdin ends nothing.
WORKER = """
import socket, sys
from pathlib import Path
from skipserve.hosts.pulse import Pulse
frontend, worker = socket.socketpair()
pulse = Pulse(Path(sys.argv[1]), "small", sys.argv[2] == "beats")
print("ready", flush=True)
pulse.wait(worker) if sys.argv[2] == "beats" else sys.stdin.read()
"""


@contextmanager
def worker(directory: Path, how: str = "beats") -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(directory), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()
