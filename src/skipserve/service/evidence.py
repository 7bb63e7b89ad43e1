"""Evidence: what the rows that were drawn say of every candidate, counted.

Whether a row is drawn depends on nothing but chance, by a probability that earlier rows have fixed
(service/in_force.py). It is drawn before anything is known of it, and whatever it shows counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.earning.ladder import OWN, Ladder
from skipserve.runtime.engine import Engine
from skipserve.runtime.losses import Judged, judge
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.shown import Shown, shown_of
from skipserve.safety.switch import Standing
from skipserve.service.reader import Read
from skipserve.service.runs import Ran
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


class Witness:
    """Judges candidates on the rows that were drawn.

    Args:
        engine: The open model.
        metrics: Counts the rows in force.
        counts: Keeps what they say; ``None`` where nobody asks.
    """

    def __init__(self, engine: Engine, metrics: ModelMetrics, counts: Counts | None) -> None:
        spec = engine.manifest.router
        decisions = spec.decisions if spec else ()
        self._engine = engine
        self._own = Ladder(engine.candidates, engine.guard_limit)
        self._metrics = metrics
        self._counts = counts
        self._ends = np.array([*decisions, engine.manifest.depth])

    def see(self, ran: Ran[Read]) -> None:
        """Take in requests that are complete."""
        if all(job.drawn is None for job in ran.jobs):
            return
        drawn = np.concatenate(
            [np.zeros(len(j.rows), dtype=bool) if j.drawn is None else j.drawn for j in ran.jobs]
        )
        given = [job for job, one in zip(ran.by_row, drawn.tolist(), strict=True) if one]
        settings = [job.setting for job in given]
        if not self._engine.shows_exits:
            judged = self._by_running(ran.rows[np.flatnonzero(drawn)], given)
            for standing, which in _by_standing(given):
                self._add(standing, judged, which)
            places = [one.candidate or 0 for one in settings]
            self._tell(settings, judged.disagrees[np.arange(len(places)), places])
            return
        shown = shown_of(ran.prediction, self._engine.manifest.task)
        for standing, which in _by_standing(given):
            if standing.proposing and self._counts is not None:
                self._counts.show(standing.epoch, shown[which])
                continue
            ladder = self._ladder(standing)
            if ladder is not None:
                part = judge(shown[which], ladder.thresholds, ladder.guard_limit, self._ends)
                self._add(standing, part)
        # What is in force may be of another ladder than evidence is judged by.
        thresholds = np.stack([one.thresholds for one in settings])[:, None]
        guard = np.array([one.guard_limit for one in settings], np.float32)[:, None, None]
        self._tell(settings, judge(shown, thresholds, guard, self._ends).disagrees[:, 0])

    def lost(self, jobs: Sequence[Read]) -> None:
        """Take in requests that could not be run."""
        for job in jobs:
            if job.drawn is None:
                continue
            count = int(np.count_nonzero(job.drawn))
            self._metrics.evidence_dropped(count)
            ladder = self._ladder(job.standing)
            if self._counts is not None and ladder is not None and not job.standing.proposing:
                none = np.zeros(len(ladder), dtype=np.int64)
                self._counts.add(job.standing.epoch, 0, none, none, count, ladder.proposal)

    def _ladder(self, standing: Standing) -> Ladder | None:
        """What evidence is judged by; ``None`` if nobody knows it: then it is no evidence."""
        if standing.proposal == OWN:
            return self._own
        return None if self._counts is None else self._counts.ladder(standing.proposal)

    def _add(
        self, standing: Standing, judged: Judged, which: NDArray[np.bool_] | slice = slice(None)
    ) -> None:
        if self._counts is not None:
            differ, blocks = judged.disagrees[which], judged.blocks[which].sum(axis=0)
            self._counts.add(
                *(standing.epoch, len(differ), differ.sum(axis=0), blocks),
                proposal=standing.proposal,
            )

    def _tell(self, settings: Sequence[Setting], differs: NDArray[np.bool_]) -> None:
        """Count the rows by the risk that is in force for them, and those that disagree there.

        Args:
            settings: Of each row.
            differs: Whether it disagrees with that [n].
        """
        # What is tested is a rate of disagreement; accuracy lost bounds none.
        counts = np.array(
            [one.candidate is not None and one.measure == "disagreement" for one in settings]
        )
        risks = np.array([one.risk or 0.0 for one in settings])
        for risk in np.unique(risks[counts]).tolist():
            at = (risks == risk) & counts
            self._metrics.evidence(risk, int(at.sum()), int(differs[at].sum()))

    def _by_running(self, rows: Rows, jobs: Sequence[Read]) -> Judged:
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
        return Judged(disagrees, blocks)


def _by_standing(jobs: Sequence[Read]) -> Iterator[tuple[Standing, NDArray[np.bool_]]]:
    """What was in force as rows were drawn, and which rows [n]; of most batches one for all."""
    told = [(job.standing.epoch, job.standing.proposal, job.standing.proposing) for job in jobs]
    for one in dict.fromkeys(told):
        which = np.array([other == one for other in told])
        yield jobs[told.index(one)].standing, which
