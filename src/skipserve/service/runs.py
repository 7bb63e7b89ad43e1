"""Running the rows of several requests: as few runs as their shapes allow."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits
from skipserve.service.batches import Batches, Group
from skipserve.telemetry.logs import fields

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """The rows of one request.

    Attributes:
        rows: Checked.
        setting: They run with.
        id: Of the request.
    """

    rows: Rows
    setting: Setting
    id: str


J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class Ran(Generic[J]):
    """Requests whose rows ran together, and what came of them.

    Attributes:
        places: Of the requests in their batch, in order.
        jobs: Theirs.
        rows: As they ran.
        prediction: For these rows.
    """

    places: Sequence[int]
    jobs: Sequence[J]
    rows: Rows
    prediction: Prediction


class Runs:
    """Runs the rows of requests to one model.

    Args:
        engine: The open model.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._batches = Batches(engine.manifest.signature)

    def run(self, numbered: Sequence[tuple[int, J]]) -> list[Ran[J]]:
        """Run all rows; those of a run that fails are missing, and the log says why.

        Args:
            numbered: The requests, each with its place in its batch.
        """
        if not numbered:
            return []
        parts = [job.rows for _, job in numbered]
        done = []
        for group in self._batches.joined(parts):
            ran = self._run(numbered, group)
            if ran is None and len(group.members) > 1:
                # Rows that the network cannot run must not harm their neighbours.
                alone = (Group([i], parts[i]) for i in group.members)
                done += [self._run(numbered, one) for one in alone]
            else:
                done.append(ran)
        return [ran for ran in done if ran is not None]

    def _run(self, numbered: Sequence[tuple[int, J]], group: Group) -> Ran[J] | None:
        places, jobs = zip(*(numbered[i] for i in group.members), strict=True)
        try:
            prediction = self._engine.run(group.rows, _limits(jobs))
        except Exception:
            logger.exception(
                "a batch of %d rows failed",
                len(group.rows),
                extra=fields(request_ids=[job.id for job in jobs]),
            )
            return None
        return Ran(places, jobs, group.rows, prediction)


def answers_of(count: int, runs: Sequence[Ran[J]]) -> list[Prediction | None]:
    """What each of so many requests was answered, if its rows ran."""
    answers: list[Prediction | None] = [None] * count
    for run in runs:
        first = 0
        for place, job in zip(run.places, run.jobs, strict=True):
            last = first + len(job.rows)
            answers[place] = run.prediction.rows(first, last)
            first = last
    return answers


def _limits(jobs: Sequence[Job]) -> Limits | None:
    if all(job.setting.risk is None for job in jobs):
        return None
    # Rows of one batch may have been asked for at different risks.
    counts = [len(job.rows) for job in jobs]
    thresholds = np.repeat([job.setting.thresholds for job in jobs], counts, axis=0)
    guard = np.array([job.setting.guard_limit for job in jobs], dtype=np.float32)
    return Limits(thresholds, np.repeat(guard, counts))
