"""granian as a host: HTTP in Rust, models in Python worker processes that it restarts."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skipserve.artifacts.archive import Unpacked
from skipserve.direct import answers
from skipserve.hosts.child import Child
from skipserve.hosts.config import HostConfig
from skipserve.hosts.granian.listeners import Listeners
from skipserve.hosts.granian.plan import plan_of
from skipserve.hosts.instance import Instance
from skipserve.hosts.processes import children, command_line, connections
from skipserve.hosts.pulse import BEAT_S
from skipserve.telemetry.logs import Log

# Should its main process end, it is restarted after a pause.
RESTART_S = 0.5
LOOK_S = 0.1


class Granian:
    """The default host of `skipserve serve`.

    Args:
        instance: Folders of this run.
        config: How to listen.
        log: Where everything that it says goes.
        listeners: Of the one that this will replace.
    """

    name = "granian"

    def __init__(
        self,
        instance: Instance,
        config: HostConfig,
        log: Log,
        listeners: Listeners | None = None,
    ) -> None:
        self._instance = instance
        self._config = config
        self._log = log
        self._listeners = listeners
        self._child: Child | None = None
        self._started_s = 0.0
        self._served = False

    def start(self, models: Sequence[Unpacked]) -> None:
        """Write the plan of its processes, and start it.

        Raises:
            LaunchError: If the port is taken.
        """
        if self._listeners is None:
            address = self._config.address
            self._listeners = Listeners(address.ip(), address.port, self._config.workers)
        plan = plan_of(self._instance, self._config, self._listeners.descriptors, models)
        self._instance.plan.write_bytes(msgspec.json.encode(plan))
        self._launch()

    def keeps(self) -> Sequence[Path]:
        """No folders of its own."""
        return ()

    def ready(self) -> bool:
        """Whether it answers."""
        if self._child is not None and self._child.ended():
            if time.monotonic() - self._started_s > RESTART_S:
                self._launch()
            return False
        answering = answers(f"{self._config.url}/live")
        self._served = self._served or answering
        return answering

    def workers(self) -> set[int]:
        """Its worker processes."""
        if self._child is None:
            return set()
        return {
            pid for pid in children(self._child.pid) if "resource_tracker" not in command_line(pid)
        }

    def ended(self) -> str:
        """Why it ended before it served; empty afterwards, because it is restarted then."""
        if self._child is None or self._served or not self._child.ended():
            return ""
        return f"granian ended by itself (status {self._child.process.returncode})"

    def successor(self, instance: Instance) -> Granian:
        """A new host on the same sockets; queued connections go to either."""
        return Granian(instance, self._config, self._log, self._listeners)

    def retire(self, stop: threading.Event) -> None:
        """Stop accepting, and end once no client is connected."""
        self._instance.is_retired.touch()
        deadline_s = time.monotonic() + self._config.drain_s
        # Until every worker has checked, and then until the last client has left.
        left_s = 2 * BEAT_S
        while not stop.wait(left_s) and time.monotonic() < deadline_s:
            if not any(connections(pid, self._config.address.port) for pid in self.workers()):
                break
            left_s = LOOK_S
        self._end()

    def close(self) -> None:
        """Let it answer pending requests, and end it."""
        if self._listeners is not None:
            self._listeners.close()
        self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.close(self._config.drain_s)

    def _launch(self) -> None:
        assert self._listeners is not None
        self._started_s = time.monotonic()
        command = [sys.executable, "-m", "skipserve.hosts.granian", str(self._instance.plan)]
        self._child = Child(
            command,
            self._instance.environment(),
            self._instance.directory,
            self._log,
            self.name,
            self._listeners.descriptors,
        )
