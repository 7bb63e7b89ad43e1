"""A host in a process of its own, with worker processes below it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from skipserve.hosts.processes import STOP_S, die_with_parent, stop_group
from skipserve.telemetry.logs import Log


class Child:
    """A child process that runs until it is closed; its output goes to the log.

    It gets SIGTERM when the thread that made it ends, so make it in one that stays.

    Args:
        command: To run.
        environment: Its own.
        directory: Where it runs.
        log: Where each line that it writes to stderr goes.
        name: Of the host.
        inherits: File descriptors that it gets.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        directory: Path,
        log: Log,
        name: str,
        inherits: Sequence[int] = (),
    ) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            command,
            env=environment,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            pass_fds=inherits,
            preexec_fn=die_with_parent,
        )
        said = (self.process.stderr, name)
        self._relay = threading.Thread(target=log.relay, args=said, daemon=True)
        self._relay.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def ended(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None

    def close(self, stop_s: float = STOP_S) -> None:
        """End it and all processes below it, and read the rest of its output.

        Args:
            stop_s: Seconds that it has to end by itself.
        """
        stop_group(self.process, stop_s)
        self._relay.join(STOP_S)  # to its last line
