"""Observing requests: metrics, evidence and log, after the replies are sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.prediction import Prediction, joined
from skipserve.service.evidence import Witness
from skipserve.service.reader import AcceptedRequest
from skipserve.service.runs import CompletedRequests
from skipserve.telemetry.journal import Batch, Journal
from skipserve.telemetry.metrics import AnsweredRequests, ModelMetrics, TurnTimes
from skipserve.telemetry.tracing import Phases


@dataclass(frozen=True)
class AnsweredBatch:
    """Requests that were answered at the same time.

    Attributes:
        requests: As they arrived.
        replies: One for each.
        phases: Times of the batch.
        ran: Predictions for their rows; ``None`` if they did not run.
    """

    requests: Sequence[RawRequest]
    replies: Sequence[Reply]
    phases: Phases
    ran: CompletedRequests[AcceptedRequest] | None = None


@dataclass
class Turn(TurnTimes):
    """Requests that were answered between two idle moments.

    Attributes:
        batches: All requests.
        lost: Requests that could not be run.
    """

    batches: list[AnsweredBatch] = field(default_factory=list)
    lost: list[AcceptedRequest] = field(default_factory=list)

    def see(
        self,
        jobs: Sequence[AcceptedRequest],
        replies: Sequence[Reply],
        inferred: float,
        ran: CompletedRequests[AcceptedRequest] | None = None,
    ) -> None:
        """Record requests that were answered together; at least one."""
        since = jobs[0].admission
        phases = Phases(since.start, since.read, inferred, perf_counter())
        self.batches.append(AnsweredBatch([job.request for job in jobs], replies, phases, ran))


class Observer:
    """Observes the requests to one model, those of several turns at once.

    Turns are added where batches run, which may be a thread; they are observed between two batches.

    Args:
        depth: Blocks of the network.
        metrics: Counts the requests.
        witness: Receives evidence rows.
        journal: Logs them.
    """

    def __init__(
        self, depth: int, metrics: ModelMetrics, witness: Witness, journal: Journal
    ) -> None:
        self._depth = depth
        self._metrics = metrics
        self._witness = witness
        self._journal = journal
        self._waits_s: list[float] = []
        self._turns: list[Turn] = []

    def waited(self, seconds: Sequence[float]) -> None:
        """Take in how long the requests of a batch waited."""
        self._waits_s += seconds

    def add(self, turn: Turn) -> None:
        """Take in a turn."""
        self._turns.append(turn)

    def observe(self) -> None:
        """Observe all that was taken in."""
        turns, self._turns = self._turns, []
        waits_s, self._waits_s = self._waits_s, []
        self._metrics.waited(waits_s)  # also of requests that waited too long to be run
        if not turns:
            return
        ran = [batch.ran for turn in turns for batch in turn.batches if batch.ran is not None]
        if ran:
            # Counted at once: that takes hardly longer than one of them.
            settings = [job.setting for one in ran for job in one.by_row]
            self._metrics.rows(joined([one.prediction for one in ran]), settings)
        answered = []
        for turn in turns:
            self._witness.lost(turn.lost)
            for batch in turn.batches:
                answered.append(self._answered(batch))
                if self._journal.tells(batch.replies):
                    self._journal.write(_journal_batch(batch, sum(turn.sizes)))
        self._metrics.requests(answered)
        self._metrics.turns(turns)

    def _answered(self, batch: AnsweredBatch) -> AnsweredRequests:
        skipped = 0 if batch.ran is None else self._skipped(batch, batch.ran)
        took_s = batch.phases.end - batch.phases.start
        return AnsweredRequests([reply.status for reply in batch.replies], skipped, took_s)

    def _skipped(self, batch: AnsweredBatch, ran: CompletedRequests[AcceptedRequest]) -> int:
        """Count evidence; returns how many requests skipped a block."""
        self._witness.see(ran)
        shallow = ran.prediction.depth_run < self._depth
        if not shallow.any():
            return 0
        answered = [reply.status == 200 for reply in batch.replies]
        starts = [first for first, _ in ran.ends]
        return int((np.logical_or.reduceat(shallow, starts) & answered).sum())


def _journal_batch(batch: AnsweredBatch, batch_rows: int) -> Batch:
    ran = batch.ran
    answers: list[Prediction | None] = [None] * len(batch.requests)
    if ran is not None:
        answers = [ran.prediction.rows(*places) for places in ran.ends]
    return Batch(batch.requests, batch.replies, answers, batch.phases, batch_rows)
