"""The worth of routing a brought network: blocks, milliseconds, and the class that pays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.artifact import open_artifact
from skipserve.artifacts.certificates import Certificate
from skipserve.building.fixed_alone import fixed_alone
from skipserve.certification.certify import fewest_samples, rows_by_class, shortest_fixed
from skipserve.intervals import percent, upper_bound
from skipserve.runtime.engine import Engine
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.sources.splits import Labelled, Splits
from skipserve.tasks import Task, Unit, Units, counted, too_short_note

BATCH = 32
# Rows whose every exit is read at once.
READ_TOGETHER = 1024
# Rows for timing, and repetitions.
TIMED, ROUNDS = 96, 7
# Least share of time that a router must save over the best fixed depth.
WORTH = 0.95


@dataclass(frozen=True)
class Worth:
    """Measurements of a router at one certified risk, on test rows.

    Attributes:
        risk: ε.
        run_rate: Share of the blocks run.
        disagreement: Share of the answers that differ from full depth; of the queries, where the
            task counts these.
        accuracy_full: Of full depth, or ``None`` without labels.
        accuracy: Of the router, or ``None``.
        fixed: Blocks of the shortest fixed depth certified at the same ε; all where none is.
        depth: Blocks of the network.
        full_ms: Milliseconds a row at full depth, alone.
        router_ms: With the router.
        fixed_ms: At the fixed depth, as a graph of its own.
        worst: Class of the full-depth answer that suffers most, and the upper bound of its
            disagreement at 95 %; ``None`` where answers are of no class.
        differs: When an answer disagrees, in words; empty where another class is another answer.
        unit: What is counted.
        too_short: Test queries beside them that cannot disagree.
    """

    risk: float
    run_rate: float
    disagreement: float
    accuracy_full: float | None
    accuracy: float | None
    fixed: int
    depth: int
    full_ms: float
    router_ms: float
    fixed_ms: float
    worst: tuple[str, float] | None
    differs: str = ""
    unit: Unit = "rows"
    too_short: int = 0

    @property
    def pays(self) -> bool:
        """Whether the router is faster than full depth and than the best fixed depth."""
        return self.router_ms < WORTH * min(self.full_ms, self.fixed_ms)

    def sentence(self) -> str:
        """The verdict."""
        blocks = f"{self.run_rate:.0%} of the blocks and {self.router_ms:.2f} ms a row"
        full = f"{self.full_ms:.2f} ms at full depth"
        fixed = f"the best certified fixed depth, {self.fixed} of {self.depth} blocks"
        against = f"{fixed}, takes {self.fixed_ms:.2f} ms"
        if self.fixed >= self.depth:
            against = "no fixed depth is certified"
        right = ""
        if self.accuracy is not None and self.accuracy_full is not None:
            right = f", {self.accuracy:.2%} right ({self.accuracy_full:.2%} at full depth)"
        head = "worth it" if self.pays else "not worth it"
        risk = f"{head}: at a certified risk of {percent(self.risk)}"
        return (
            f"{risk} it runs {blocks} against {full}; {against}. It disagrees on "
            f"{self.disagreement:.2%} of the test {self.unit}"
            f"{too_short_note(self.too_short)}{right}{self._who()}."
        )

    def _who(self) -> str:
        if self.worst is None:
            return f" ({self.differs})"
        name, bound = self.worst
        return f"; {name} suffers most, on at most {bound:.1%} of its rows"


def measure_worth(directory: Path, splits: Splits, risk: float) -> Worth | str:
    """Measure an artifact on untouched test rows.

    Args:
        directory: The artifact, certified.
        splits: Its rows.
        risk: ε that is wanted.

    Returns:
        What it is worth, or why there is nothing to be worth.
    """
    artifact = open_artifact(directory)
    precision = artifact.manifest.files[0].precision
    engine = Engine.for_many(artifact, provider="cpu", precision=precision)
    setting = engine.setting(risk)
    if setting.risk is None:
        return _nothing(engine, splits, risk)
    certificate = engine.certified()[setting.risk]
    test = splits.test
    full = engine.run_batches(test.rows, engine.off, BATCH)
    routed = engine.run_batches(test.rows, setting, BATCH)
    fixed = _shortest_fixed(engine, splits.certify, certificate)
    depth = engine.manifest.depth
    alone = fixed_alone(artifact, precision, fixed)
    full_ms, router_ms, fixed_ms = _milliseconds(engine, test.rows[:TIMED], setting, alone)
    task = engine.manifest.task
    units = Units(task, len(test), test.queries)
    differs = units.differ(routed.answers, full.answers)
    return Worth(
        risk=setting.risk,
        run_rate=float(routed.depth_run.mean()) / depth,
        disagreement=float(differs.mean()),
        accuracy_full=_accuracy(task, full, test),
        accuracy=_accuracy(task, routed, test),
        fixed=fixed,
        depth=depth,
        full_ms=full_ms,
        router_ms=router_ms,
        fixed_ms=fixed_ms,
        worst=_worst(task, full, differs),
        differs="" if task.classes else task.differs,
        unit=counted(task),
        too_short=units.too_short,
    )


def _nothing(engine: Engine, splits: Splits, risk: float) -> str:
    spec = engine.manifest.router
    assert spec is not None
    if spec.certificate == "earned":
        return (
            "what it is worth, its traffic will tell: it answers at full depth until a risk of "
            f"{percent(risk)} is earned; see `skipserve certificate {engine.manifest.name}`"
        )
    task, tested = engine.manifest.task, splits.certify
    units, have = counted(task), Units(task, len(tested), tested.queries).count
    classes = task.classes if spec.per_class else 0
    needed, of_each = fewest_samples(risk, spec.offline_confidence, classes), ""
    if classes:
        of_each = " of each class, which are certified one by one,"
    if have < needed * max(classes, 1):
        return (
            f"not worth it yet: {have} {units} cannot certify a risk of {percent(risk)}, it "
            f"takes at least {needed}{of_each} and in practice several times as many; bring more "
            f"{units}, or ask for a larger --risk"
        )
    return (
        f"not worth it: no candidate could be certified at {percent(risk)} on {have} {units}, so "
        f"it serves at full depth; bring more {units}, or ask for a larger --risk"
    )


def _accuracy(task: Task, answers: Prediction, data: Labelled) -> float | None:
    if data.labels is None:
        return None
    return float(task.right(answers.answers, data.labels).mean())


def _shortest_fixed(engine: Engine, data: Labelled, certificate: Certificate) -> int:
    """Blocks of the shortest fixed depth that passes the same test."""
    task, spec = engine.manifest.task, engine.manifest.router
    assert spec is not None
    # Answers of every exit may need gigabytes; whether they agree needs little. Queries are
    # compared as a whole, and their answers are single numbers.
    together = READ_TOGETHER if task.top is None else len(data)
    agrees, labels = [], []
    for start in range(0, len(data), together):
        part = slice(start, start + together)
        answers = engine.read(data.rows[part]).answers
        queries = None if data.queries is None else data.queries[part]
        agrees.append(Units(task, len(answers), queries).agree_by_depth(answers))
        labels.append(task.labels(answers[:, -1]))
    blocks = np.array([*spec.decisions, engine.manifest.depth])
    known = [one for one in labels if one is not None]
    by_class = rows_by_class(task, np.concatenate(known) if known else None, spec.per_class)
    risk, confidence = certificate.risk, certificate.confidence
    return shortest_fixed(blocks, np.concatenate(agrees), risk, confidence, by_class)


def _milliseconds(
    engine: Engine, rows: Rows, setting: Setting, fixed: OnnxPiece | None
) -> tuple[float, float, float]:
    """Milliseconds of one row at full depth, routed, and at a fixed depth: medians."""
    singles = [rows[i : i + 1] for i in range(len(rows))]
    calls: list[Callable[[Rows], object]] = [
        lambda row: engine.run(row),
        lambda row: engine.run_thresholds(row, setting.thresholds, setting.guard_limit),
        engine.run if fixed is None else lambda row: fixed.run(row.tensors),
    ]
    times: list[list[float]] = [[] for _ in calls]
    for turn in range(ROUNDS + 1):
        for spent, call in zip(times, calls, strict=True):
            start = perf_counter()
            for row in singles:
                call(row)
            if turn:  # the first one warms up
                spent.append(1e3 * (perf_counter() - start) / len(singles))
    full, routed, stopped = (median(spent) for spent in times)
    return full, routed, stopped


def _worst(task: Task, full: Prediction, differs: NDArray[np.bool_]) -> tuple[str, float] | None:
    """The full-depth class with the highest rate of disagreement, and the bound on its rate."""
    labels = full.labels
    if not task.classes or labels is None:
        return None

    def rate(label: int) -> tuple[float, float]:
        of_class = labels == label
        wrong, count = int(differs[of_class].sum()), int(of_class.sum())
        return wrong / count, upper_bound(wrong, count, 0.95)

    worst = max(np.unique(labels).tolist(), key=rate)
    name = f"class {task.names[worst]}" if task.names else f"class {worst}"
    return name, rate(worst)[1]
