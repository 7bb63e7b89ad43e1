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
        done: list[Ran[J]] = []
        for group in self._batches.joined(parts):
            try:
                done.append(self._run(numbered, group))
            except Exception as error:  # each backend raises classes of its own
                done += self._alone(numbered, group, parts, error)
        return done

    def _alone(
        self, numbered: Sequence[tuple[int, J]], group: Group, parts: Sequence[Rows], why: Exception
    ) -> list[Ran[J]]:
        """Each request of a failed run by itself: rows that cannot run must harm no neighbour."""
        done, failed = list[Ran[J]](), list(group.members)
        if len(failed) > 1:
            failed = []
            for i in group.members:
                try:
                    done.append(self._run(numbered, Group([i], parts[i])))
                except Exception as error:
                    failed.append(i)
                    why = error
        logger.error(
            "a batch of %d rows failed; %d of its %d requests cannot run",
            *(len(group.rows), len(failed), len(group.members)),
            exc_info=why,
            extra=fields(request_ids=[numbered[i][1].id for i in failed]),
        )
        return done

    def _run(self, numbered: Sequence[tuple[int, J]], group: Group) -> Ran[J]:
        places, jobs = zip(*(numbered[i] for i in group.members), strict=True)
        return Ran(places, jobs, group.rows, self._engine.run(group.rows, _limits(jobs)))


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
