"""Evidence: what the rows that were drawn say of every candidate, counted.

Whether a row is drawn depends on nothing but chance, by a probability that earlier rows have fixed
(service/in_force.py). It is drawn before anything is known of it, and whatever it shows counts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.engine import Engine
from skipserve.runtime.losses import CandidateLosses, candidate_losses
from skipserve.runtime.rows import Rows
from skipserve.service.reader import AcceptedRequest
from skipserve.service.runs import CompletedRequests
from skipserve.telemetry.metrics import ModelMetrics


class Counts(Protocol):
    """Keeps what evidence rows said, for the launcher to read."""

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
    ) -> None:
        """Take in rows of an epoch.

        Args:
            epoch: That they were drawn in.
            rows: That gave evidence.
            disagreements: Of them, under each candidate [candidates].
            blocks: Run under each candidate [candidates].
            dropped: Rows that were drawn and could not be run.
        """
        ...


class Witness:
    """Judges the candidates of one model on the rows that were drawn.

    Args:
        engine: The open model.
        metrics: Counts the rows in force.
        counts: Keep what they say, by slice of the traffic; of a slice without, nobody asks.
    """

    def __init__(self, engine: Engine, metrics: ModelMetrics, counts: Mapping[str, Counts]) -> None:
        spec = engine.manifest.router
        decisions = spec.decisions if spec else ()
        self._engine = engine
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
        if self._engine.shows_exits:
            task = self._engine.manifest.task
            judged = candidate_losses(ran.prediction, task, self._engine.candidates, self._ends)
        else:
            judged = self._by_running(ran.rows[np.flatnonzero(drawn)], given)
        places = defaultdict[tuple[str, int], list[int]](list)
        for place, job in enumerate(given):
            places[job.of_slice, job.epoch].append(place)
        for (of_slice, epoch), which in places.items():
            self._add(of_slice, epoch, judged, which)
        self._tell(given, judged)

    def lost(self, jobs: Sequence[AcceptedRequest]) -> None:
        """Take in requests that could not be run."""
        for job in jobs:
            if job.drawn is None:
                continue
            count = int(np.count_nonzero(job.drawn))
            self._metrics.evidence_dropped(job.of_slice, count)
            if job.of_slice in self._counts:
                none = np.zeros(len(self._engine.candidates), dtype=np.int64)
                self._counts[job.of_slice].add(job.epoch, 0, none, none, count)

    def _add(
        self, of_slice: str, epoch: int, judged: CandidateLosses, which: Sequence[int]
    ) -> None:
        if of_slice in self._counts:
            disagreements = judged.disagrees[which].sum(axis=0)
            blocks = judged.blocks[which].sum(axis=0)
            self._counts[of_slice].add(epoch, len(which), disagreements, blocks)

    def _tell(self, jobs: Sequence[AcceptedRequest], judged: CandidateLosses) -> None:
        """Count the rows by the risk that is in force for them, and those that disagree there."""
        # What is tested is a rate of disagreement; accuracy lost bounds none.
        places = np.array(
            [
                -1 if one.candidate is None or one.measure != "disagreement" else one.candidate
                for one in (job.setting for job in jobs)
            ]
        )
        differs = judged.disagrees[np.arange(len(places)), places]
        seen: dict[tuple[str, float], list[int]] = {}
        for job, place, differ in zip(jobs, places.tolist(), differs.tolist(), strict=True):
            if place >= 0:
                counted = seen.setdefault((job.of_slice, job.setting.risk or 0.0), [0, 0])
                counted[0] += 1
                counted[1] += differ
        for (of_slice, risk), (rows, disagreements) in seen.items():
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
