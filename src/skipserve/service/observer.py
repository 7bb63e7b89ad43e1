"""What is counted, drawn and told once the replies of a turn are on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.prediction import Prediction
from skipserve.service.reader import Read
from skipserve.service.runs import Ran
from skipserve.service.shadow import Answered, Shadow
from skipserve.telemetry.journal import Batch, Journal
from skipserve.telemetry.metrics import ModelMetrics
from skipserve.telemetry.tracing import Phases


@dataclass(frozen=True)
class Seen:
    """Requests that were answered at the same time.

    Attributes:
        requests: As they arrived.
        replies: One for each.
        phases: When what happened to them.
        ran: What came of their rows; ``None`` if those did not run.
    """

    requests: Sequence[RawRequest]
    replies: Sequence[Reply]
    phases: Phases
    ran: Ran[Read] | None = None


@dataclass
class Turn:
    """Requests that were answered between two quiet moments.

    Attributes:
        off: The router was on for none of them, as its switch is thrown.
        sizes: Rows that set out together.
        read_s: Seconds that reading took.
        inference_s: And the stages.
        encode_s: And the replies.
        seen: All requests.
    """

    off: bool
    sizes: list[int] = field(default_factory=list)
    read_s: float = 0.0
    inference_s: float = 0.0
    encode_s: float = 0.0
    seen: list[Seen] = field(default_factory=list)

    def see(
        self,
        jobs: Sequence[Read],
        replies: Sequence[Reply],
        inferred: float,
        ran: Ran[Read] | None = None,
    ) -> None:
        """Requests were answered that set out together, at least one."""
        since = jobs[0].admission
        phases = Phases(since.start, since.read, inferred, perf_counter())
        self.seen.append(Seen([job.request for job in jobs], replies, phases, ran))


class Observer:
    """Observes the requests to one model.

    Args:
        depth: Blocks of the network.
        metrics: Counts them.
        shadow: Runs some of their rows again.
        journal: Tells of them.
    """

    def __init__(self, depth: int, metrics: ModelMetrics, shadow: Shadow, journal: Journal) -> None:
        self._depth = depth
        self._metrics = metrics
        self._shadow = shadow
        self._journal = journal

    def observe(self, turn: Turn) -> None:
        """Observe a turn, and run rows again until the next."""
        batch_rows = sum(turn.sizes)
        for seen in turn.seen:
            skipped = 0 if seen.ran is None else self._rows(seen, turn.off)
            took_s = seen.phases.end - seen.phases.start
            self._metrics.requests([reply.status for reply in seen.replies], skipped, took_s)
            if self._journal.tells(seen.replies):
                self._journal.write(_told(seen, batch_rows))
        self._metrics.phases(turn.sizes, turn.read_s, turn.inference_s, turn.encode_s)
        self._shadow.work()

    def _rows(self, seen: Seen, off: bool) -> int:
        """Count the rows and draw from them; how many requests left out a block."""
        ran = seen.ran
        assert ran is not None
        jobs = [
            job
            for job, (first, last) in zip(ran.jobs, ran.ends, strict=True)
            for _ in range(first, last)
        ]
        in_force, wanted = [job.setting for job in jobs], [job.wanted for job in jobs]
        self._metrics.rows(ran.prediction, in_force)
        self._shadow.draw(Answered(ran.rows, ran.prediction, wanted, off))
        shallow = ran.prediction.depth_run < self._depth
        if not shallow.any():
            return 0
        answered = [reply.status == 200 for reply in seen.replies]
        starts = [first for first, _ in ran.ends]
        return int((np.logical_or.reduceat(shallow, starts) & answered).sum())


def _told(seen: Seen, batch_rows: int) -> Batch:
    ran = seen.ran
    answers: list[Prediction | None] = [None] * len(seen.requests)
    if ran is not None:
        answers = [ran.prediction.rows(*places) for places in ran.ends]
    return Batch(seen.requests, seen.replies, answers, seen.phases, batch_rows)
