"""Running the rows of several requests in as few batches as their shapes allow."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Generic, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve.protocols.messages import RawRequest
from skipserve.runtime.engine import Engine
from skipserve.runtime.flights import Failed
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits
from skipserve.service.batches import Batches
from skipserve.service.together import Places, Together
from skipserve.telemetry.logs import fields

logger = logging.getLogger(__name__)


class Job(msgspec.Struct, frozen=True):
    """The rows of one request.

    Attributes:
        rows: Checked.
        setting: The setting they run with.
        request: As it arrived.
        drawn: Which of them give evidence [n], bool; ``None``: none.
    """

    rows: Rows
    setting: Setting
    request: RawRequest
    drawn: NDArray[np.bool_] | None


J = TypeVar("J", bound=Job)


@dataclass(frozen=True)
class CompletedRequests(Generic[J]):
    """Requests whose rows have all left, and their predictions.

    Attributes:
        jobs: At least one.
        rows: As they ran.
        prediction: For these rows.
    """

    jobs: Sequence[J]
    rows: Rows
    prediction: Prediction

    @cached_property
    def ends(self) -> Sequence[tuple[int, int]]:
        """The first row of each request, and the row behind its last."""
        return list(pairwise(accumulate((len(job.rows) for job in self.jobs), initial=0)))

    @cached_property
    def by_row(self) -> Sequence[J]:
        """The request of each row."""
        return [job for job in self.jobs for _ in range(len(job.rows))]


class Runs(Generic[J]):
    """Requests to one model that are running.

    Args:
        engine: The open model.
        batches: Joins their rows.
        most: Most rows that are joined into one batch.
    """

    def __init__(self, engine: Engine, batches: Batches, most: int) -> None:
        self._engine = engine
        self._batches = batches
        self._flights = engine.flights(most)
        self._groups: list[tuple[Together, list[J]]] = []
        self._firsts: list[int] = []  # what the first row of each is called
        self._rows = 0

    def __bool__(self) -> bool:
        """Whether rows are on their way."""
        return bool(self._flights)

    def admit(self, jobs: Sequence[J]) -> list[int]:
        """Admit requests, at least one; returns the rows of each batch."""
        sizes = []
        for group in self._batches.joined([job.rows for job in jobs]):
            members = [jobs[i] for i in group.members]
            size = len(group.rows)
            self._groups.append((Together(group.rows, [len(one.rows) for one in members]), members))
            self._firsts.append(self._rows)
            names, limits = np.arange(self._rows, self._rows + size), self._limits(members)
            self._rows += size
            for places, rows in self._batches.apart(group.rows):
                self._flights.admit(rows, limits[places], names[places])
                sizes.append(len(rows))
        return sizes

    def step(self) -> tuple[list[CompletedRequests[J]], list[J]]:
        """Run one stage; returns requests that are completed, and requests that failed.

        The log says why they cannot.
        """
        try:
            left = self._flights.step()
        except Failed as failed:
            return self._alone(failed)
        if left is None:
            return [], []
        ran = []
        for together, jobs, which, places in self._by_group(left.rows):
            done = together.settle(places, left.results[which])
            if done is not None:
                prediction = self._engine.to_prediction(done.rows, done.results)
                ran.append(
                    CompletedRequests([jobs[i] for i in done.members], done.rows, prediction)
                )
        return ran, []

    def _by_group(self, rows: Places) -> Iterator[tuple[Together, list[J], Places | slice, Places]]:
        """Groups of finished rows, with their places in the group."""
        if len(self._groups) == 1:
            yield *self._groups[0], slice(None), rows
            return
        groups = np.searchsorted(self._firsts, rows, side="right") - 1
        for i in np.unique(groups).tolist():
            which = np.flatnonzero(groups == i)
            yield *self._groups[i], which, rows[which] - self._firsts[i]

    def _alone(self, failed: Failed) -> tuple[list[CompletedRequests[J]], list[J]]:
        """Run each request of a failed batch alone, so that only faulty rows fail."""
        jobs = [
            group[i]
            for together, group, _, places in self._by_group(failed.rows)
            for i in together.give_up(places)
        ]
        ran, lost, why = list[CompletedRequests[J]](), jobs, failed.__cause__
        if len(jobs) > 1:
            lost = []
            for job in jobs:
                try:
                    prediction = self._engine.run(job.rows, self._limits([job]))
                    ran.append(CompletedRequests([job], job.rows, prediction))
                except Exception as error:  # each backend raises its own exception types
                    lost.append(job)
                    why = error
        logger.error(
            "a batch of %d rows failed; %d of its %d requests cannot run",
            *(len(failed.rows), len(lost), len(jobs)),
            exc_info=why,
            extra=fields(request_ids=[job.request.id for job in lost]),
        )
        return ran, lost

    def _limits(self, jobs: Sequence[J]) -> Limits:
        counts, setting = [len(job.rows) for job in jobs], jobs[0].setting
        thresholds = np.empty((sum(counts), len(setting.thresholds)), np.float32)
        guard = np.empty(len(thresholds), np.float32)
        if all(job.setting is setting for job in jobs):
            thresholds[:], guard[:] = setting.thresholds, setting.guard_limit
        else:  # rows of one batch may have been asked for at different risks
            thresholds[:] = np.repeat([job.setting.thresholds for job in jobs], counts, axis=0)
            guard[:] = np.repeat([job.setting.guard_limit for job in jobs], counts)
        drawn = None
        if self._engine.shows_exits and any(job.drawn is not None for job in jobs):
            pairs = zip(jobs, counts, strict=True)
            drawn = np.concatenate(
                [np.zeros(n, dtype=bool) if job.drawn is None else job.drawn for job, n in pairs]
            )
            # The guard reports what it would hold back also where nothing is in force.
            off = drawn & np.isinf(guard)
            guard = np.where(off, np.float32(self._engine.guard_limit), guard)
        return Limits(thresholds, guard, drawn)
