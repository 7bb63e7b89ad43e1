"""Processes of a host, and signals to this process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import psutil

STOP_S = 10.0
POLL_S = 0.02


def stop_group(process: subprocess.Popen[bytes], stop_s: float = STOP_S) -> None:
    """End a process and its group: SIGTERM first, and what stays so many seconds is killed."""
    deadline = time.monotonic() + stop_s
    # Workers are children of the host and in its group; all get the signal.
    below = _processes(children(process.pid))
    _signal_group(process, signal.SIGTERM)
    psutil.wait_procs(below, timeout=stop_s)
    while not _is_over(process) and time.monotonic() < deadline:
        time.sleep(POLL_S)
    # Also a worker that was being started meanwhile.
    _signal_group(process, signal.SIGKILL)
    process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Its PID cannot be reused before it is reaped.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)


def _is_over(process: subprocess.Popen[bytes]) -> bool:
    """Whether a child process has ended; it is not reaped, so its PID stays reserved."""
    if process.returncode is not None:
        return True
    try:
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True
    return ended is not None


def children(pid: int) -> set[int]:
    """All living descendants of a process."""
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def command_line(pid: int) -> str:
    """The command line of a process; empty if it has ended."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def connections(pid: int, port: int) -> int:
    """How many connections to a port of a process are established."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.Error:
        return 0
    return sum(
        one.status == psutil.CONN_ESTABLISHED and bool(one.laddr) and one.laddr.port == port
        for one in found
    )


def _processes(pids: set[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def die_with_parent() -> None:
    """For a child process: receive SIGTERM when the parent dies."""
    # Linux alone knows this; the frontend's workers follow it.
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@dataclass(frozen=True)
class Signals:
    """The signals that were received.

    Attributes:
        stop: Set by SIGTERM, SIGINT and a terminal that is closed.
        reload: Set by SIGHUP otherwise.
    """

    stop: threading.Event
    reload: threading.Event


@contextlib.contextmanager
def listen_to_signals() -> Iterator[Signals]:
    """Collect signals while the block runs."""
    signals = Signals(threading.Event(), threading.Event())
    had_terminal = _has_terminal()
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup

    def hang_up(*_: object) -> None:
        # The terminal is gone before SIGHUP arrives.
        if had_terminal and not _has_terminal():
            if not ignored:
                signals.stop.set()
        else:
            signals.reload.set()

    handlers = {
        signal.SIGTERM: lambda *_: signals.stop.set(),
        signal.SIGINT: lambda *_: signals.stop.set(),
        signal.SIGHUP: hang_up,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
