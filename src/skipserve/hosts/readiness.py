"""Readiness: the host answers, and the workers of every model are alive."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from skipserve.hosts.host import Host
from skipserve.hosts.pulse import Worker, living
from skipserve.telemetry.exposition import Exposition
from skipserve.telemetry.probes import Flag

# A worker that is silent for longer is stopped or hangs. Batches may take longer where the
# timeout of the model allows it.
SILENT_S = 10.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerRequirement:
    """The workers that a model needs to be ready.

    Attributes:
        workers: How many.
        silent_s: How long one may take for a batch before it counts as hanging, in seconds.
        ended_s: How long it may be silent before it is ended, for another to take its place.
    """

    workers: int
    silent_s: float
    ended_s: float = math.inf

    @classmethod
    def of(cls, workers: int, response_timeout_s: float) -> WorkerRequirement:
        """By the settings of a model: a worker hangs after a sixth of its timeout, at least 10 s.

        A worker whose batch takes too long ends by itself; one that is stopped cannot, and is ended
        ten seconds later.
        """
        silent_s = max(SILENT_S, response_timeout_s / 6)
        return cls(workers, silent_s, max(silent_s, response_timeout_s + SILENT_S))


class Readiness:
    """Watches the processes of a service; :meth:`look` is called every second, or sooner.

    Args:
        host: Which listens.
        pulses: Where the workers leave theirs.
        required: By model.
        metrics: Learns of workers that have ended.
        ready: Set while the service can answer.
        patience_s: How long a model may lack a worker before the service is given up, in seconds.
    """

    def __init__(
        self,
        host: Host,
        pulses: Path,
        required: Mapping[str, WorkerRequirement],
        metrics: Exposition,
        ready: Flag,
        patience_s: float,
    ) -> None:
        self._host = host
        self._pulses = pulses
        self._required = required
        self._metrics = metrics
        self._ready = ready
        self._patience_s = patience_s
        self._beside: Host | None = None
        self._guests: set[int] = set()
        self._workers: set[int] = set()
        self._retired: set[int] = set()
        self._answered_s: float | None = None
        self._complete_s = dict.fromkeys(required, float("-inf"))
        self._said = ""

    def missing(self) -> str:
        """Which model lacks workers with an open model; empty if none does.

        Raises:
            OSError: If the workers' files cannot be read.
        """
        return missing_of(living(self._pulses), self._required)

    def look(self, now_s: float, stopping: Callable[[], bool]) -> str:
        """Check the processes once.

        Args:
            now_s: Seconds on a clock that never jumps.
            stopping: Whether the service is being stopped, and is not ready for that.

        Returns:
            Why the service will not be ready again by itself; empty while it may.

        Raises:
            OSError: If the files of the workers cannot be read.
        """
        self._count_the_dead()
        # Always first: this call restarts a host that has ended.
        answering = self._host.ready()
        workers = living(self._pulses)
        problem = missing_of(workers, self._required) or self._silent(now_s, workers, answering)
        if problem:
            self._ready.clear()
        elif not stopping():
            self._ready.set()
        if problem != self._said:
            # Logged once: the seconds are not part of the message.
            logger.warning("%s", f"not ready: {problem}" if problem else "ready again")
            self._said = problem
        have = Counter(worker.model for worker in workers)
        for model, required in self._required.items():
            if have[model] >= required.workers or self._complete_s[model] < 0:
                self._complete_s[model] = now_s
            elif now_s - self._complete_s[model] > self._patience_s:
                return f"{model} lost a worker and none came back in {self._patience_s:g} s"
        return ""

    def expect(self, host: Host | None) -> None:
        """Expect another host to start or end, or none: its workers may come and go until then."""
        self._receive()
        self._beside = host

    def follow(self, host: Host, pulses: Path, required: Mapping[str, WorkerRequirement]) -> None:
        """Watch another, expected host, and expect the one before to end."""
        self._host, self._beside = host, self._host
        self._pulses, self._required = pulses, required
        workers = host.workers()
        self._guests = (self._guests | self._workers) - workers
        self._workers = workers
        self._complete_s = dict.fromkeys(required, float("-inf"))

    def _receive(self) -> set[int]:
        """Add the workers of the host beside to the guests; returns those that live."""
        if self._beside is None:
            return set()
        # One may have started and ended since the last look: it leaves its file.
        self._guests |= self._metrics.writers() - self._workers - self._host.workers()
        beside = self._beside.workers()
        self._guests |= beside
        return beside

    def _count_the_dead(self) -> None:
        beside = self._receive()
        # Files first: a worker with a file that is not found afterwards has ended.
        known = self._workers | self._guests | self._metrics.writers()
        alive = self._host.workers() | beside
        gone = known - alive - self._retired
        if gone - self._guests:
            self._ready.clear()  # before it shows in the metrics
        for pid in sorted(gone):
            if pid not in self._guests:
                logger.warning("worker %d ended by itself", pid)
                self._metrics.restarts.inc()
            self._metrics.retire(pid)
        # On a full disk the counts of a worker stay in its own files.
        self._retired = (self._retired | gone) - alive
        self._guests -= self._retired
        self._workers = alive - beside

    def _silent(self, now_s: float, workers: list[Worker], answering: bool) -> str:
        for worker in workers:
            limit_s = self._required[worker.model].silent_s
            if worker.silent_s > self._required[worker.model].ended_s:
                logger.warning(
                    "worker %d of %s is ended: it is stopped or hangs", worker.pid, worker.model
                )
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
            if worker.silent_s > limit_s:
                return (
                    f"worker {worker.pid} of {worker.model} is stopped or hangs: nothing heard "
                    f"of it for {limit_s:g} s"
                )
        if answering or self._answered_s is None:
            self._answered_s = now_s
        elif now_s - self._answered_s > SILENT_S:
            return f"{self._host.name} answers nothing for {SILENT_S:g} s"
        return ""


def missing_of(workers: Sequence[Worker], required: Mapping[str, WorkerRequirement]) -> str:
    """Which model lacks workers; empty if none does."""
    have = Counter(worker.model for worker in workers)
    for model, one in required.items():
        if have[model] < one.workers:
            return f"{have[model]} of {one.workers} workers of {model} are there"
    return ""
