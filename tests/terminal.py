"""A terminal that is closed: what a service does then. Run by test_signals.py, with asserts."""

from __future__ import annotations

import os
import pty
import signal
import sys
from pathlib import Path

from running import until
from test_signals import listening


def main(heard: Path, nohup: bool) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "nohup")
