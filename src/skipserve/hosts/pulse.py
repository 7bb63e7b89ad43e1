"""Pulses: whether workers are alive and their loops make progress.

    worker    holds a lock on PULSES/MODEL.PID, and touches it each time its loop comes round
    launcher  counts the files that are held, and looks how long ago each was touched

The kernel gives a lock back however its holder dies, so that neither a file left behind nor another
process with the same number is taken for a worker. One that is stopped, or hangs in an inference,
keeps its lock and touches nothing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Environment variable with the folder of the pulses.
DIRECTORY_VARIABLE = "SKIPSERVE_PULSES"
# A worker touches its file no more often than this, and waits for requests no longer.
BEAT_S = 1.0
_NEVER_BEATS = 0


class Pulse:
    """The pulse file of a worker, locked until the process ends.

    Args:
        directory: Where the launcher looks.
        model: What this process serves.
        beats: Whether :meth:`wait` will be called; without, being there is enough.
    """

    def __init__(self, directory: Path, model: str, beats: bool = True) -> None:
        file = directory / f"{model}.{os.getpid()}"
        # Locked before it gets its name, because the launcher removes unlocked files.
        fresh = file.with_name(f".{file.name}")
        self._descriptor = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        # Only its times change from here on, so a full disk does not stop a worker.
        self._touched_s = 0.0
        self._touch(time.monotonic() if beats else _NEVER_BEATS)
        fresh.rename(file)

    def beat(self) -> None:
        """Record one turn of the loop; at most two system calls a second."""
        now_s = time.monotonic()
        if now_s - self._touched_s >= BEAT_S / 2:
            self._touch(now_s)

    def wait(self, connection: socket.socket) -> None:
        """Wait until there is data to read, and beat meanwhile."""
        self.beat()
        while not select.select([connection], [], [], BEAT_S)[0]:
            self.beat()

    def _touch(self, now_s: float) -> None:
        self._touched_s = now_s
        now_ns = int(now_s * 1e9)
        with contextlib.suppress(OSError):
            os.utime(self._descriptor, ns=(now_ns, now_ns))


class NoPulse(Pulse):
    """The pulse of a worker without a launcher."""

    def __init__(self) -> None:
        pass

    def beat(self) -> None:
        """Nothing."""

    def wait(self, connection: socket.socket) -> None:
        """Nothing; reading waits by itself."""


def pulse_of(model: str, beats: bool = True) -> Pulse:
    """The pulse of this worker; a pulse that does nothing without a launcher."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    return Pulse(Path(directory), model, beats) if directory else NoPulse()


@dataclass(frozen=True)
class Worker:
    """A living worker.

    Attributes:
        model: What it serves.
        pid: Its process.
        silent_s: Seconds since its loop came round; 0 for one that does not say.
    """

    model: str
    pid: int
    silent_s: float


def living(directory: Path) -> list[Worker]:
    """Living workers with an open model; files of dead ones are removed.

    Raises:
        OSError: If the directory cannot be read.
    """
    now_s = time.monotonic()
    found = []
    for file in directory.iterdir():
        model, _, pid = file.name.rpartition(".")
        if not model or file.name.startswith("."):
            continue
        with contextlib.suppress(FileNotFoundError), _opened(file) as descriptor:
            if lock(descriptor, shared=True):
                file.unlink(missing_ok=True)
                continue
            touched_ns = os.fstat(descriptor).st_mtime_ns
            silent_s = 0.0 if touched_ns == _NEVER_BEATS else now_s - touched_ns / 1e9
            found.append(Worker(model, int(pid), max(silent_s, 0.0)))
    return found


def lock(descriptor: int, shared: bool = False) -> bool:
    """Try to take a lock; whether it was free."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[int]:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
