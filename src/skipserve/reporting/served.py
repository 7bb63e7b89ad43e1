"""The artifact as it serves: its certificates, and the router on the sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Certificate, Refusal
from skipserve.intervals import Rate, rate, upper_bound
from skipserve.reporting.sample import Sample
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction
from skipserve.tasks import Task, Units


@dataclass(frozen=True)
class Point:
    """A certified risk, with its result in certification and on the sample.

    Attributes:
        certificate: As it stands in the artifact.
        tested: Its disagreements with their exact interval.
        seen: Disagreements on this report's rows.
        run_rate: Share of the blocks run on them.
        accuracy: On them, or ``None`` without labels.
    """

    certificate: Certificate
    tested: Rate
    seen: Rate
    run_rate: float
    accuracy: float | None


@dataclass(frozen=True)
class Routed:
    """Results of the router on each row at one risk.

    Attributes:
        risk: ε.
        depth_run: Blocks run [N], int64.
        held_back: Sent to full depth by the guard [N], bool.
        settled: Largest probability of the answer, by which ties of depth are broken [N], float32.
        all_rows: Disagreement among all rows; among all queries, where the task counts these.
        skipped: Disagreement among those that left something out.
        by_class: Disagreement by the class of the answer of full depth, largest rate first; empty
            where answers are of no class.
    """

    risk: float
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    settled: NDArray[np.float32]
    all_rows: Rate
    skipped: Rate
    by_class: tuple[tuple[int, Rate], ...]

    @property
    def worst(self) -> tuple[int, Rate, float] | None:
        """The class with the highest rate of disagreement, the rate, and its 95 % upper bound.

        It has the largest rate; of equal ones that which least is known of.
        """
        bounded = [
            (one, rate, upper_bound(rate.count, rate.total, 0.95)) for one, rate in self.by_class
        ]
        return max(bounded, key=lambda one: (one[1].value, one[2]), default=None)


def certified_points(
    engine: Engine, sample: Sample, full: Prediction, batch_size: int
) -> list[Point]:
    """Every certificate that holds for the open files, run on the sample.

    Args:
        engine: Of an artifact with a router.
        sample: Rows that the certificates were not made on.
        full: Their answers at full depth [N].
        batch_size: Rows that run together.
    """
    points, task = [], engine.manifest.task
    units = Units(task, len(sample), sample.queries)
    for risk, certificate in sorted(engine.certified().items()):
        answers = engine.run_batches(sample.rows, engine.setting(risk), batch_size)
        right, differs = None, units.differ(answers.answers, full.answers)
        if sample.labels is not None:
            right = float(task.right(answers.answers, sample.labels).mean())
        points.append(
            Point(
                certificate,
                rate(certificate.disagreements, certificate.samples),
                rate(int(differs.sum()), units.count),
                float(answers.depth_run.mean() / engine.manifest.depth),
                right,
            )
        )
    return points


def routed_at(
    engine: Engine, sample: Sample, full: Prediction, risk: float, batch_size: int
) -> Routed:
    """Run the sample at one certified risk, and count by class and among the skipped."""
    answers = engine.run_batches(sample.rows, engine.setting(risk), batch_size)
    task = engine.manifest.task
    units = Units(task, len(sample), sample.queries)
    differs = units.differ(answers.answers, full.answers)
    left_out = units.any(answers.depth_run < engine.manifest.depth)
    classes = []
    if task.classes and full.labels is not None:
        classes = [(int(one), full.labels == one) for one in np.unique(full.labels)]
    by_class = [(one, rate(int(differs[rows].sum()), int(rows.sum()))) for one, rows in classes]
    return Routed(
        risk=risk,
        depth_run=answers.depth_run,
        held_back=answers.held_back,
        settled=settled(task, answers.answers),
        all_rows=rate(int(differs.sum()), units.count),
        skipped=rate(int(differs[left_out].sum()), int(left_out.sum())),
        by_class=tuple(sorted(by_class, key=lambda one: (-one[1].value, one[0]))),
    )


def settled(task: Task, answers: NDArray[np.float32]) -> NDArray[np.float32]:
    """Confidence of answers [N]; 0 for tasks without one."""
    if task.link == "softmax":
        return np.asarray(answers.max(axis=1))
    if task.link == "sigmoid":
        return np.asarray(np.maximum(answers, 1 - answers).min(axis=1))
    return np.zeros(len(answers), np.float32)


def refusals(engine: Engine, all_refusals: Sequence[Refusal]) -> list[Refusal]:
    """Refusals that concern the open files."""
    return [
        one for one in all_refusals if one.files == engine.files and one.provider == engine.provider
    ]
