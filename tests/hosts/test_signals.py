"""Signals: end or reload; SIGHUP can mean either."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from running import until

SCRIPT = """
import sys
from pathlib import Path
from skipserve.hosts.processes import listen_to_signals

heard = Path(sys.argv[1])
with listen_to_signals() as signals:
    heard.write_text("listening")
    while not signals.stop.wait(0.05):
        if signals.reload.is_set():
            signals.reload.clear()
            heard.write_text("reload")
heard.write_text("stop")
"""


@contextmanager
def listening(heard: Path, terminal: int | None, nohup: bool = False) -> Iterator[int]:
    """A process that writes down what it heard, in a session of its own."""

    def prepare() -> None:
        if terminal is not None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        # Not what the tests themselves were started with, which may be nohup.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(heard)], start_new_session=True, preexec_fn=prepare
    )
    try:
        until(lambda: heard.exists() and heard.read_text() == "listening")
        yield process.pid
        process.terminate()
        process.wait(60)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    heard = tmp_path / "heard"
    with listening(heard, None) as pid:
        os.kill(pid, number)
        until(lambda: heard.read_text() == "stop")


@pytest.mark.parametrize("nohup", [False, True])
def test_a_hangup_reloads_until_the_terminal_is_closed(tmp_path: Path, nohup: bool) -> None:
    heard = tmp_path / "heard"
    ours, terminal = pty.openpty()
    with listening(heard, terminal, nohup) as pid:
        os.close(terminal)
        os.kill(pid, signal.SIGHUP)
        until(lambda: heard.read_text() == "reload")
        heard.write_text("closed")
        os.close(ours)  # the kernel sends the signal
        if nohup:
            os.kill(pid, signal.SIGHUP)
            os.kill(pid, 0)
            assert heard.read_text() == "closed"
        else:
            until(lambda: heard.read_text() == "stop")


def test_a_hangup_reloads_where_there_is_no_terminal(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    with listening(heard, None) as pid:
        os.kill(pid, signal.SIGHUP)
        until(lambda: heard.read_text() == "reload")
