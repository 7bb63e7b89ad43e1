"""A trial: the outcomes of all candidates for one file of an artifact on one set of samples."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from skipserve.certification.certify import Outcome, lost_of, outcome_of, rows_by_class
from skipserve.errors import ConfigError
from skipserve.routing.propose import Thresholds
from skipserve.routing.stopping import first_stop, inside_so_far
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.tasks import Units

Say = Callable[[str], None]
# The guard holds back 0.5 % of rows like calibration; this many mean another distribution.
MOST_HELD_BACK = 0.5
# Deciles of fewer rows are too rough: m rows alone give a stability index of about 9 / m.
ROWS_FOR_DECILES = 200
# The answers of all exits are kept in memory, up to so many.
ANSWERS_BYTES = 256 << 20


def sha256_of(rows: Rows, units: Units) -> str:
    """SHA-256 of samples: of the rows, and of which are of one query if queries are counted."""
    if units.grouping is None:
        return rows.sha256
    grouping = units.grouping.astype("<i8").tobytes()
    return hashlib.sha256(rows.sha256.encode() + grouping).hexdigest()


class Trial:
    """One file on one set of samples: what each candidate does there.

    Args:
        engine: Runs the file.
        rows: The samples.
        truth: What is right of each [N], if it is known.
        units: What is counted of them.
        limit: Of the guard.
        batch_size: Rows that run together.
        say: Told about progress.
    """

    def __init__(
        self,
        engine: Engine,
        rows: Rows,
        truth: NDArray[np.int64] | None,
        units: Units,
        limit: float,
        batch_size: int,
        say: Say,
    ) -> None:
        self._engine = engine
        self._rows = rows
        self.units = units
        self._truth = truth
        self._limit = limit
        self._batch_size = batch_size
        self._say = say
        spec = engine.manifest.router
        self._per_class = spec is not None and spec.per_class
        self.deciles: list[tuple[tuple[float, ...] | None, ...]] = []
        self._full = engine.run_batches(rows, engine.off, batch_size)
        self._readings: ExitReadings | None = None

    @property
    def foresees(self) -> bool:
        """Whether what the exits read off a row does not depend on what the others do.

        In INT8 it does: what is quantized on the way is scaled by the whole batch.
        """
        engine = self._engine
        spec = engine.manifest.router
        exits = len(spec.decisions) + 1 if spec else 1
        room = len(self._rows) * exits * engine.manifest.task.width * 4 <= ANSWERS_BYTES
        return room and engine.shows_exits and engine.precision == "fp32"

    def run(self, thresholds: Thresholds) -> Outcome:
        """Run the samples with a candidate, as requests are served."""
        setting = Setting(thresholds, self._limit)
        return self._outcome(self._engine.run_batches(self._rows, setting, self._batch_size))

    def read(self) -> ExitReadings:
        """What every exit reads off every sample; computed once."""
        if self._readings is None:
            self._readings = self._engine.read(self._rows, self._batch_size)
        return self._readings

    def foresee(self, thresholds: Thresholds) -> Outcome:
        """Compute the outcome from one reading of every exit, without running the candidate."""
        read, spec = self.read(), self._engine.manifest.router
        assert spec is not None
        inside = inside_so_far(read.distances, self._limit)
        may = inside[:, [one.leaves for one in spec.exits]]
        where = first_stop(read.signals, thresholds, may)
        left = where < len(thresholds)
        blocks = np.array([*spec.decisions, self._engine.manifest.depth])
        answers = read.answers[np.arange(len(where)), where]
        reached = np.arange(len(thresholds)) <= where[:, None]
        labels = self._engine.manifest.task.labels(answers)
        signals = np.where(reached, read.signals, np.float32(np.nan))
        held_back = ~left & ~inside[:, -1]
        return self._outcome(Prediction(labels, answers, blocks[where], held_back, signals))

    def _outcome(self, answers: Prediction) -> Outcome:
        task, full = self._engine.manifest.task, self._full
        lost = None
        if self._truth is not None:
            right = [task.right(one.answers, self._truth) for one in (full, answers)]
            lost = lost_of(*right)
        outcome = outcome_of(
            self.units.differ(answers.answers, full.answers),
            answers.depth_run,
            answers.held_back,
            self._engine.manifest.depth,
            lost,
            rows_by_class(task, full.labels, self._per_class),
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
            f"{outcome.disagreements} of {self.units.count} disagree at {outcome.run_rate:.1%} "
            "run rate"
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
