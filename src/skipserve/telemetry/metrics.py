"""Prometheus metrics of a worker.

A worker writes to the directory that ``PROMETHEUS_MULTIPROC_DIR`` names; the launcher reads what
all of them wrote (exposition.py). Counts outlive the worker that made them. docs/metrics.md lists
every metric.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Histogram

from skipserve.intervals import spelled
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.telemetry.series import (
    ANSWERS,
    BATCH,
    BLOCK_ROWS,
    CERTIFIED_RISK,
    DEPTH_RUN,
    DISAGREEMENTS,
    DROPPED,
    EVIDENCE_ROWS,
    FALLBACK,
    HELD_BACK,
    INFO,
    LATENCY,
    NOT_RUN,
    OVERFLOWS,
    OVERLOAD_MOVES,
    PHASE,
    PHASES,
    QUEUE_WAIT,
    REASONS,
    REQUESTS,
    RISK_IN_FORCE,
    ROWS,
    STATUSES,
    THRESHOLD,
)
from skipserve.telemetry.signal_rows import SignalRows


@dataclass(frozen=True)
class AnsweredRequests:
    """Requests of one batch, which all took as long as the batch.

    Attributes:
        statuses: HTTP status of each.
        skipped: How many of those with 200 have a row that left out a block.
        duration_s: Seconds.
    """

    statuses: Sequence[int]
    skipped: int
    duration_s: float


@dataclass
class TurnTimes:
    """What took how long until a model was idle again.

    Attributes:
        sizes: Rows that began together.
        read_s: Seconds of reading.
        inference_s: Seconds of the stages.
        encode_s: Seconds of encoding.
    """

    sizes: list[int] = field(default_factory=list)
    read_s: float = 0.0
    inference_s: float = 0.0
    encode_s: float = 0.0


class ModelMetrics:
    """The metrics of one model in one worker, their labels bound once.

    Every series is made when the model opens, so that no page of the files is first written to, and
    found missing, in the middle of serving.

    Args:
        engine: The open model.
        defaults: Settings of requests without a router request, by slice of the traffic.
        evident: Whether rows may be drawn as evidence.
    """

    def __init__(
        self, engine: Engine, defaults: Mapping[str, Setting], evident: bool = True
    ) -> None:
        manifest = engine.manifest
        model = self._model = manifest.name
        self._depth = manifest.depth
        self._requests = {code: REQUESTS.labels(model, str(code)) for code in STATUSES}
        self._not_run = {reason: NOT_RUN.labels(model, reason) for reason in REASONS}
        self._latency = {depth: LATENCY.labels(model, depth) for depth in ("full", "skipped")}
        self._phases = {phase: PHASE.labels(model, phase) for phase in PHASES}
        self._batch = BATCH.labels(model)
        self._wait = QUEUE_WAIT.labels(model)
        self._off = ROWS.labels(model, "off")
        self._overflow = {answer: OVERFLOWS.labels(model, answer) for answer in ANSWERS}
        spec = manifest.router
        if spec is not None:
            ends = np.array([0, *spec.decisions, self._depth])
            self._stage_lengths = np.diff(ends)
            self._on = ROWS.labels(model, "on")
            blocks = range(1, self._depth + 1)
            self._run = [BLOCK_ROWS.labels(model, str(block), "run") for block in blocks]
            self._skipped = [BLOCK_ROWS.labels(model, str(block), "skipped") for block in blocks]
            self._depth_run = DEPTH_RUN.labels(model)
            self._held_back = HELD_BACK.labels(model)
            # No series where no row gives evidence: one at 0 looks like a sample that failed.
            risks = {*engine.certified(), *spec.risks} if evident else ()
            self._evidence, self._disagreed = (
                {
                    (of, risk): series.labels(model, of, spelled(risk))
                    for of in defaults
                    for risk in risks
                }
                for series in (EVIDENCE_ROWS, DISAGREEMENTS)
            )
            self._dropped = {of: DROPPED.labels(model, of) for of in defaults if evident}
            self._signals = SignalRows(engine)
        INFO.labels(
            model,
            manifest.task.kind,
            engine.backend,
            engine.provider,
            engine.precision,
            manifest.source.sha256[:12],
        ).set(1)
        FALLBACK.labels(model).set(int(engine.fell_back))
        self._moves = {to: OVERLOAD_MOVES.labels(model, to) for to in ("up", "down")}
        self._at_risk: dict[str, float] = {}
        for of_slice, setting in defaults.items():
            self.risk_in_force(of_slice, setting.risk)
            self.default(of_slice, setting)

    def default(self, of_slice: str, setting: Setting) -> None:
        """Show the default setting; without a risk, the last thresholds stay.

        Args:
            of_slice: Slice of the traffic; "" where it is not sliced, here and below.
            setting: Of requests without a router request.
        """
        if setting.risk is not None:
            CERTIFIED_RISK.labels(self._model, of_slice).set(setting.risk)
            for stage, threshold in enumerate(setting.thresholds.tolist(), 1):
                THRESHOLD.labels(self._model, of_slice, str(stage)).set(threshold)

    def requests(self, answered: Sequence[AnsweredRequests]) -> None:
        """Count answered requests.

        Args:
            answered: Those of several batches.
        """
        found, full, skipped = Tally[int](), [], []
        for some in answered:
            statuses = Tally(some.statuses)
            found += statuses
            full.append((some.duration_s, statuses[200] - some.skipped))
            skipped.append((some.duration_s, some.skipped))
        for status, count in found.items():
            self._answered(status, count)
        observe(self._latency["full"], full)
        observe(self._latency["skipped"], skipped)

    def turned_away(self, reason: str, status: int | None = None) -> None:
        """Count a request that was refused before it began.

        Args:
            reason: Why; other reasons than the counted ones are errors of the client.
            status: It was answered, if it was.
        """
        if reason in self._not_run:
            self._not_run[reason].inc()
        if status is not None:
            self._answered(status, 1)

    def _answered(self, status: int, count: int) -> None:
        if status not in self._requests:
            self._requests[status] = REQUESTS.labels(self._model, str(status))
        self._requests[status].inc(count)

    def risk_in_force(self, of_slice: str, risk: float | None, moved: bool = False) -> None:
        """Show the risk of requests that name none.

        Args:
            of_slice: That the request is of.
            risk: ε; ``None`` for full depth.
            moved: By the queue, and not by an operator or a certificate.
        """
        now = risk or 0.0
        if moved:
            self._moves["up" if now > self._at_risk[of_slice] else "down"].inc()
        self._at_risk[of_slice] = now
        RISK_IN_FORCE.labels(self._model, of_slice).set(now)

    def waited(self, seconds: Sequence[float]) -> None:
        """Observe how long each of some requests waited."""
        observe(self._wait, [(one, 1) for one in seconds])

    def turns(self, turns: Sequence[TurnTimes]) -> None:
        """Observe batches, and how long their phases took."""
        observe(self._batch, [(rows, 1) for turn in turns for rows in turn.sizes])
        times_of = self._phases
        observe(times_of["inference"], [(turn.inference_s, 1) for turn in turns if turn.sizes])
        observe(times_of["decode"], [(turn.read_s, 1) for turn in turns])
        observe(times_of["encode"], [(turn.encode_s, 1) for turn in turns])

    def rows(self, prediction: Prediction, settings: Sequence[Setting]) -> None:
        """Count the rows of one batch.

        Args:
            prediction: For B rows.
            settings: In force for each of them [B].
        """
        self._overflows(prediction)
        on = np.array([one.risk is not None for one in settings])
        routed = int(np.count_nonzero(on))
        if routed < len(on):
            self._off.inc(len(on) - routed)
        if not routed:
            return
        self._on.inc(routed)
        held = int(np.count_nonzero(prediction.held_back & on))
        if held:
            self._held_back.inc(held)
        depths = np.bincount(prediction.depth_run[on], minlength=self._depth + 1)
        observe(self._depth_run, enumerate(depths.tolist()))
        for block, left_out in enumerate(self._left_out(prediction, on, depths).tolist()):
            if left_out < routed:
                self._run[block].inc(routed - left_out)
            if left_out:
                self._skipped[block].inc(left_out)
        if prediction.signals is not None:
            self._signals.count(prediction, settings)

    def _left_out(
        self, prediction: Prediction, on: NDArray[np.bool_], depths: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Rows that skipped each block [depth]."""
        if prediction.left_out is None:
            # A row that left after three blocks left out all behind them.
            return np.asarray(np.cumsum(depths)[:-1])
        # Rows held back or run again in FP32 ran every block.
        shallow = on & (prediction.depth_run < self._depth)
        return np.repeat([0, *prediction.left_out[shallow].sum(axis=0)], self._stage_lengths)

    def _overflows(self, prediction: Prediction) -> None:
        if not prediction.all_finite:
            self._overflow["refused"].inc(int(np.count_nonzero(~prediction.finite)))
        if prediction.reran is not None:
            self._overflow["fp32"].inc(int(np.count_nonzero(prediction.reran)))

    def evidence(self, of_slice: str, risk: float, rows: int, disagreements: int) -> None:
        """Count evidence rows by the ε in force for them, and those that disagree there."""
        self._evidence[of_slice, risk].inc(rows)
        if disagreements:
            self._disagreed[of_slice, risk].inc(disagreements)

    def evidence_dropped(self, of_slice: str, rows: int) -> None:
        """Count evidence rows that failed."""
        self._dropped[of_slice].inc(rows)


def observe(histogram: Histogram, values: Iterable[tuple[float, int]]) -> None:
    """Observe many values at once.

    Args:
        histogram: With its labels bound.
        values: In the unit of the histogram, each with how often it was seen, which may be 0.
    """
    # prometheus_client observes one at a time, which for a batch of 64 rows takes 0.1 ms.
    total, buckets = 0.0, Tally[int]()
    for value, times in values:
        if times:
            total += value * times
            buckets[bisect_left(histogram._upper_bounds, value)] += times
    if buckets:
        histogram._sum.inc(total)
    for bucket, times in buckets.items():
        histogram._buckets[bucket].inc(times)
