"""A trial: the outcomes of all candidates for one file of an artifact on one set of samples."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skipserve.certification.certify import Outcome, lost_of, outcome_of
from skipserve.errors import ConfigError
from skipserve.routing.propose import Thresholds
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting
from skipserve.runtime.rows import Rows

Say = Callable[[str], None]
# The guard holds back 0.5 % of rows like calibration; this many mean another distribution.
MOST_HELD_BACK = 0.5
# Deciles of fewer rows are too rough: m rows alone give a stability index of about 9 / m.
ROWS_FOR_DECILES = 200


class Trial:
    """Runs candidates for one file on one set of samples."""

    def __init__(
        self,
        engine: Engine,
        rows: Rows,
        truth: NDArray[np.int64] | None,
        limit: float,
        batch_size: int,
        say: Say,
    ) -> None:
        self._engine = engine
        self._rows = rows
        self._truth = truth
        self._limit = limit
        self._batch_size = batch_size
        self._say = say
        spec = engine.manifest.router
        self._per_class = spec is not None and spec.per_class
        self.deciles: list[tuple[tuple[float, ...] | None, ...]] = []
        self._full = engine.run_batches(rows, engine.off, batch_size)

    def run(self, thresholds: Thresholds) -> Outcome:
        setting = Setting(thresholds, self._limit)
        answers = self._engine.run_batches(self._rows, setting, self._batch_size)
        task, full = self._engine.manifest.task, self._full
        lost = None
        if self._truth is not None:
            right = [task.right(one.answers, self._truth) for one in (full, answers)]
            lost = lost_of(*right)
        classes = range(task.classes if self._per_class else 0)
        outcome = outcome_of(
            ~task.agree(answers.answers, full.answers),
            answers.depth_run,
            answers.held_back,
            self._engine.manifest.depth,
            lost,
            [np.asarray(full.labels == one) for one in classes],
        )
        if outcome.held_back > MOST_HELD_BACK:
            raise ConfigError(
                f"the guard holds back {outcome.held_back:.0%} of the samples: they are not like "
                "the rows its router was fitted on; certify on "
                "rows of the task, or build a model on these"
            )
        assert answers.signals is not None
        self.deciles.append(_deciles(answers.signals))
        self._say(
            f"{outcome.disagreements} of {len(self._rows)} disagree at "
            f"{outcome.run_rate:.1%} run rate"
        )
        return outcome


def _deciles(signals: NDArray[np.float32]) -> tuple[tuple[float, ...] | None, ...]:
    """Deciles of each column of signals [N, decisions]; NaN where a row left before."""
    columns = [column[~np.isnan(column)] for column in signals.T]
    return tuple(
        tuple(np.quantile(column, np.arange(1, 10) / 10).tolist())
        if len(column) >= ROWS_FOR_DECILES
        else None
        for column in columns
    )
