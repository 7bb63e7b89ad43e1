"""Processes: those of a host, and signals to our own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import psutil

STOP_S = 10.0


def stop_group(process: subprocess.Popen[bytes], stop_s: float = STOP_S) -> None:
    """End a process and its children: SIGTERM first, and what stays so many seconds is killed."""
    # Workers are children of the frontend and in its group; both get the signal.
    group = children(process.pid) | {process.pid}
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(_processes(group - {process.pid}), timeout=stop_s)
    try:
        process.wait(stop_s)
    except subprocess.TimeoutExpired:
        alive.append(psutil.Process(process.pid))
    for rest in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            rest.kill()
    process.wait()


def children(pid: int) -> set[int]:
    """Everything a process started that still runs."""
    try:
        return {child.pid for child in psutil.Process(pid).children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def command_line(pid: int) -> str:
    """What a process was started with; empty if it is gone."""
    try:
        return " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return ""


def _processes(pids: set[int]) -> list[psutil.Process]:
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append(psutil.Process(pid))
    return found


def die_with_parent() -> None:
    """For a child before it becomes a program: get SIGTERM when the parent is killed outright."""
    # Linux alone knows this; the frontend's workers follow it.
    pr_set_pdeathsig = 1
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM, SIGINT and a closed terminal set."""
    stop = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
