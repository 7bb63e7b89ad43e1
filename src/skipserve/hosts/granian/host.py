"""granian as a host: HTTP in Rust, the models in Python processes that it starts again."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from skipserve.artifacts.archive import Unpacked
from skipserve.direct import answers
from skipserve.hosts.child import Child
from skipserve.hosts.config import HostConfig
from skipserve.hosts.granian.plan import Plan, plan_of
from skipserve.hosts.instance import Instance
from skipserve.hosts.processes import children, command_line
from skipserve.telemetry.logs import Log

# granian ends when a worker dies twice in six seconds; it is started again, but not in a rush.
RESTART_S = 0.5


class Granian:
    """The host that `skipserve serve` starts if it is told nothing else.

    Args:
        instance: Folders of this run.
        config: How to listen.
        log: Where everything that it says goes.
    """

    name = "granian"

    def __init__(self, instance: Instance, config: HostConfig, log: Log) -> None:
        self._instance = instance
        self._config = config
        self._log = log
        self._child: Child | None = None
        self._started_s = 0.0
        self._served = False

    def start(self, models: Sequence[Unpacked]) -> None:
        """Write what its processes read, and start it."""
        ip = self._config.address.ip()
        plan = plan_of(self._instance, self._config, ip, [model.name for model in models])
        (self._instance.directory / Plan.FILE).write_bytes(msgspec.json.encode(plan))
        self._launch()

    def keeps(self) -> Sequence[Path]:
        """None beside the models."""
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
        """Why it does not run any more; empty once it has served, for it is started again."""
        if self._child is None or self._served or not self._child.ended():
            return ""
        return f"granian ended by itself (status {self._child.process.returncode})"

    def close(self) -> None:
        """Have it answer what is on its way, and end it."""
        if self._child is not None:
            self._child.close(self._config.drain_s)

    def _launch(self) -> None:
        self._started_s = time.monotonic()
        directory = self._instance.directory
        command = [sys.executable, "-m", "skipserve.hosts.granian", str(directory / Plan.FILE)]
        environment = self._instance.environment()
        self._child = Child(command, environment, directory, self._log, self.name)
