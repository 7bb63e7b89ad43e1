"""One of granian's workers: every model of the service, in one event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from skipserve.artifacts.archive import Unpacked, opened
from skipserve.hosts.application import Application
from skipserve.hosts.granian.deadlines import Deadline, Deadlines
from skipserve.hosts.granian.plan import PLAN_VARIABLE, Plan, read_plan
from skipserve.hosts.models import Models
from skipserve.hosts.processes import die_with_parent
from skipserve.hosts.pulse import BEAT_S, Pulse, pulse_of
from skipserve.hosts.ready import Ready
from skipserve.hosts.rsgi import Rsgi
from skipserve.telemetry.logs import Log


class Worker:
    """Opens the models of a plan and watches over their batches.

    Args:
        plan: From the launcher.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._pulses: list[Pulse] = []

    def open(self) -> Application:
        """Open the models; the launcher learns of it by their pulses.

        Raises:
            ArtifactError: If the files of one cannot be loaded.
        """
        store = self._plan.instance.store
        unpacked = [opened(store / name) for name in self._plan.models]
        deadlines = Deadlines()

        def deadline(one: Unpacked) -> Deadline:
            return deadlines.of(one.serving.response_timeout_s)

        self._models = Models(unpacked, deadline)
        ready = Ready(self._plan.instance.is_ready)
        self._pulses = [pulse_of(name) for name in self._plan.models]
        self._beat(asyncio.get_running_loop())
        return Application(self._models, ready.is_set, self._plan.origins)

    def close(self) -> None:
        """End the threads."""
        self._models.close()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        for pulse in self._pulses:
            pulse.beat()
        loop.call_later(BEAT_S, self._beat, loop)


def make() -> Rsgi:
    """What granian calls in each of its workers."""
    # granian's main process hands down its own handler, which only it obeys.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    Log().attach()
    worker = Worker(read_plan(Path(os.environ[PLAN_VARIABLE])))
    return Rsgi(worker.open, worker.close)
