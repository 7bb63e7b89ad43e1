"""A worker of granian: every model of the service in one event loop."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from skipserve.artifacts.archive import Unpacked, opened
from skipserve.hosts.application import Application
from skipserve.hosts.granian.deadlines import Deadline, Deadlines
from skipserve.hosts.granian.listeners import DESCRIPTOR_VARIABLE, accept_no_more, listen
from skipserve.hosts.granian.plan import PLAN_VARIABLE, Plan, read_plan
from skipserve.hosts.models import Models
from skipserve.hosts.processes import die_with_parent
from skipserve.hosts.pulse import BEAT_S, Pulse, pulse_of
from skipserve.hosts.ready import Ready
from skipserve.hosts.rehearsal import rehearse
from skipserve.hosts.rsgi import Rsgi
from skipserve.service.arrivals import Arrivals
from skipserve.telemetry.logs import Log


class Worker:
    """Opens the models of a plan and watches their batches.

    Args:
        plan: From the launcher.
        listener: File descriptor of the socket that it accepts from.

    Attributes:
        arrivals: Requests to its models.
    """

    def __init__(self, plan: Plan, listener: int) -> None:
        self.arrivals = Arrivals()
        self._plan = plan
        self._instance = plan.instance
        self._listener = listener
        self._pulses: list[Pulse] = []
        self._retired = False

    async def open(self) -> Application:
        """Open the models; their pulses show the launcher that they are open.

        Raises:
            ArtifactError: If the files of one cannot be loaded.
        """
        try:
            return await self._open()
        except Exception as error:
            self._instance.failure.write_text(str(error))
            raise

    async def _open(self) -> Application:
        store = self._instance.store
        unpacked = [opened(store / name) for name in self._plan.models]
        deadlines = Deadlines()

        def deadline(one: Unpacked) -> Deadline:
            return deadlines.of(one.serving.response_timeout_s)

        self._models = Models(unpacked, deadline, self.arrivals)
        ready = Ready(self._instance.is_ready)
        application = Application(
            self._models, ready.is_set, self._plan.origins, self._plan.access()
        )
        if self._instance.generation > 1:
            # The launcher warms up the first generation, over the port.
            for model in self._models.values():
                await rehearse(application, model)
            self._instance.has_answered.touch()
        listen(self._listener)
        self._pulses = [pulse_of(name) for name in self._plan.models]
        self._beat(asyncio.get_running_loop())
        return application

    def is_retired(self) -> bool:
        """Whether another generation has replaced this one."""
        return self._retired

    def close(self) -> None:
        """End the threads."""
        self._models.close()

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        for pulse in self._pulses:
            pulse.beat()
        if not self._retired and self._instance.is_retired.exists():
            self._retired = True
            accept_no_more(self._listener)
        loop.call_later(BEAT_S, self._beat, loop)


def make() -> Rsgi:
    """The entry point of granian in each worker."""
    # granian's main process hands down its own handler, which only it obeys.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    die_with_parent()
    Log().attach()
    plan = read_plan(Path(os.environ[PLAN_VARIABLE]))
    worker = Worker(plan, int(os.environ[DESCRIPTOR_VARIABLE]))
    return Rsgi(worker.open, worker.close, worker.is_retired, plan.body_s, worker.arrivals)
