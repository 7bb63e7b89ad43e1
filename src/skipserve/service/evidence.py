"""Evidence: what the rows that were drawn say of every candidate, counted.

Whether a row is drawn depends on nothing but chance, by a probability that earlier rows have fixed
(service/in_force.py). It is drawn before anything is known of it, and whatever it shows counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.earning.ladder import OWN, Ladder
from skipserve.runtime.engine import Engine
from skipserve.runtime.losses import CandidateLosses, candidate_losses
from skipserve.runtime.rows import Rows
from skipserve.runtime.shown import Shown, shown_of
from skipserve.service.reader import AcceptedRequest
from skipserve.service.runs import CompletedRequests
from skipserve.telemetry.metrics import ModelMetrics


class EvidenceSink(Protocol):
    """Keeps what evidence rows said, for the launcher to read."""

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
        proposal: str = OWN,
    ) -> None:
        """Take in rows of an epoch.

        Args:
            epoch: That they were drawn in.
            rows: That gave evidence.
            disagreements: Of them, under each candidate [candidates].
            blocks: Run under each candidate [candidates].
            dropped: Rows that were drawn and could not be run.
            proposal: The ladder that the candidates are of.
        """
        ...

    def show(self, epoch: int, shown: Shown) -> None:
        """Take in rows of an epoch that propose."""
        ...

    def ladder(self, proposal: str) -> Ladder | None:
        """What traffic has proposed, by its name."""
        ...

    def close(self) -> None:
        """Write the rest."""
        ...


class Witness:
    """Judges candidates on the rows that were drawn.

    Args:
        engine: The open model.
        metrics: Counts the rows in force.
        counts: Keep the counts, by slice of the traffic; slices without are not counted.
    """

    def __init__(
        self, engine: Engine, metrics: ModelMetrics, counts: Mapping[str, EvidenceSink]
    ) -> None:
        spec = engine.manifest.router
        decisions = spec.decisions if spec else ()
        self._engine = engine
        self._own = Ladder(engine.candidates, engine.guard_limit)
        self._metrics = metrics
        self._counts = counts
        self._ends = np.array([*decisions, engine.manifest.depth])

    def see(self, ran: CompletedRequests[AcceptedRequest]) -> None:
        """Take in requests that are complete."""
        if all(job.drawn is None for job in ran.jobs):
            return
        drawn = np.concatenate(
            [np.zeros(len(j.rows), dtype=bool) if j.drawn is None else j.drawn for j in ran.jobs]
        )
        given = [job for job, one in zip(ran.by_row, drawn.tolist(), strict=True) if one]
        if not self._engine.shows_exits:
            losses = self._by_running(ran.rows[np.flatnonzero(drawn)], given)
            for job, which in _together(given):
                self._add(job, losses, which)
            places = [job.setting.candidate or 0 for job in given]
            self._tell(given, losses.disagrees[np.arange(len(places)), places])
            return
        shown = shown_of(ran.prediction, self._engine.manifest.task)
        for job, which in _together(given):
            if job.control.proposing and job.of_slice in self._counts:
                self._counts[job.of_slice].show(job.control.epoch, shown[which])
                continue
            ladder = self._ladder(job)
            if ladder is not None:
                limit = ladder.guard_limit
                part = candidate_losses(shown[which], ladder.thresholds, limit, self._ends)
                self._add(job, part)
        # What is in force may be of another ladder than evidence is judged by.
        settings = [job.setting for job in given]
        thresholds = np.stack([one.thresholds for one in settings])[:, None]
        guard = np.array([one.guard_limit for one in settings], np.float32)[:, None, None]
        now = candidate_losses(shown, thresholds, guard, self._ends)
        self._tell(given, now.disagrees[:, 0])

    def lost(self, jobs: Sequence[AcceptedRequest]) -> None:
        """Take in requests that could not be run."""
        for job in jobs:
            if job.drawn is None:
                continue
            count = int(np.count_nonzero(job.drawn))
            self._metrics.evidence_dropped(job.of_slice, count)
            ladder = self._ladder(job)
            if job.of_slice in self._counts and ladder is not None and not job.control.proposing:
                none = np.zeros(len(ladder), dtype=np.int64)
                self._counts[job.of_slice].add(
                    job.control.epoch, 0, none, none, count, ladder.proposal
                )

    def _ladder(self, job: AcceptedRequest) -> Ladder | None:
        """The ladder that evidence is judged by; ``None`` if it is unknown: no evidence then."""
        if job.control.proposal == OWN:
            return self._own
        counts = self._counts.get(job.of_slice)
        return None if counts is None else counts.ladder(job.control.proposal)

    def _add(
        self,
        job: AcceptedRequest,
        losses: CandidateLosses,
        which: NDArray[np.bool_] | slice = slice(None),
    ) -> None:
        if job.of_slice in self._counts:
            differ, blocks = losses.disagrees[which], losses.blocks[which].sum(axis=0)
            self._counts[job.of_slice].add(
                *(job.control.epoch, len(differ), differ.sum(axis=0), blocks),
                proposal=job.control.proposal,
            )

    def _tell(self, jobs: Sequence[AcceptedRequest], differs: NDArray[np.bool_]) -> None:
        """Count the rows by the risk that is in force for them, and those that disagree there.

        Args:
            jobs: The request of each row.
            differs: Whether the row disagrees under what is in force for it [n].
        """
        found = defaultdict[tuple[str, float], list[int]](lambda: [0, 0])
        for job, differ in zip(jobs, differs.tolist(), strict=True):
            setting = job.setting
            # Only disagreement is tested; accuracy lost does not bound it.
            if setting.candidate is not None and setting.measure == "disagreement":
                counted = found[job.of_slice, setting.risk or 0.0]
                counted[0] += 1
                counted[1] += differ
        for (of_slice, risk), (rows, disagreements) in found.items():
            self._metrics.evidence(of_slice, risk, rows, disagreements)

    def _by_running(self, rows: Rows, jobs: Sequence[AcceptedRequest]) -> CandidateLosses:
        """The same of files that decide inside: the candidates in force are run, and full depth.

        Of the others nothing is known, so they count as disagreeing: none of them is ever earned.
        """
        engine = self._engine
        shape = len(rows), len(engine.candidates)
        disagrees = np.ones(shape, dtype=bool)
        blocks = np.full(shape, engine.manifest.depth, dtype=np.int64)
        full = engine.run(rows).answers
        known = np.isfinite(full).all(axis=1)
        for place in {job.setting.candidate for job in jobs} - {None}:
            thresholds = engine.candidates[place]
            answers = engine.run_thresholds(rows, thresholds, engine.guard_limit)
            agrees = engine.manifest.task.agree(answers.answers, full) & known
            disagrees[:, place] = ~agrees
            blocks[:, place] = answers.depth_run
        return CandidateLosses(disagrees, blocks)


def _together(
    jobs: Sequence[AcceptedRequest],
) -> Iterator[tuple[AcceptedRequest, NDArray[np.bool_]]]:
    """Rows that count together: the request of one of them, and which rows [n]."""
    keys = [
        (job.of_slice, job.control.epoch, job.control.proposal, job.control.proposing)
        for job in jobs
    ]
    for one in dict.fromkeys(keys):
        which = np.array([other == one for other in keys])
        yield jobs[keys.index(one)], which
