"""One of granian's workers: every model of the service, in one event loop."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from pathlib import Path

from skipserve.artifacts.archive import opened
from skipserve.hosts.application import Application
from skipserve.hosts.granian.plan import Plan, read_plan
from skipserve.hosts.models import Models
from skipserve.hosts.pulse import BEAT_S, Pulse, pulse_of
from skipserve.hosts.ready import Ready
from skipserve.hosts.rsgi import Rsgi
from skipserve.telemetry.logs import Log

PLAN_VARIABLE = "SKIPSERVE_GRANIAN"

logger = logging.getLogger(__name__)


class Worker:
    """Opens the models of a plan and watches over their batches.

    Args:
        plan: From the launcher.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._running = 0
        self._limit_s = 0.0
        self._pulses: list[Pulse] = []

    def open(self) -> Application:
        """Open the models; the launcher learns of it by their pulses.

        Raises:
            ArtifactError: If the files of one cannot be loaded.
        """
        store = self._plan.instance.store
        unpacked = [opened(store / name) for name in self._plan.models]
        self._limit_s = max(one.serving.response_timeout_s for one in unpacked)
        # The kernel sends the signal and C code answers it, so that a thread that hangs with the
        # interpreter's lock cannot prevent it.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        faulthandler.register(signal.SIGALRM, all_threads=True, chain=True)
        self._models = Models(unpacked, self)
        ready = Ready(self._plan.instance.is_ready)
        self._pulses = [pulse_of(name) for name in self._plan.models]
        self._beat(asyncio.get_running_loop())
        return Application(self._models, ready.is_set, self._plan.origins)

    def close(self) -> None:
        """End the threads."""
        self._models.close()

    def begin(self) -> None:
        """A batch begins: one that takes too long ends the process, with its tracebacks."""
        if not self._running:
            signal.setitimer(signal.ITIMER_REAL, self._limit_s)
        self._running += 1

    def end(self) -> None:
        """It ended."""
        self._running -= 1
        if not self._running:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        for pulse in self._pulses:
            pulse.beat()
        loop.call_later(BEAT_S, self._beat, loop)


def make() -> Rsgi:
    """What granian calls in each of its workers."""
    Log().attach()
    worker = Worker(read_plan(Path(os.environ[PLAN_VARIABLE])))
    return Rsgi(worker.open, worker.close)
