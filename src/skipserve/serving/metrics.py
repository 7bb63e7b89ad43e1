"""Prometheus metrics of the workers: what they count, and how a batch is counted.

A worker writes to the directory that ``PROMETHEUS_MULTIPROC_DIR`` names; the launcher reads what
all of them wrote (exposition.py). Counts outlive the worker that made them. docs/metrics.md lists
every metric.
"""

from __future__ import annotations

import logging
import os
import shutil
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import Counter, Gauge, Histogram

from skipserve.artifacts.certificates import MEASURES, Measure
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.serving.drift import BINS, bins_of

# Seconds; 100 µs to 10 s with an edge at exactly 15 ms, the target of the service.
BUCKETS = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
DEPTHS = (*range(1, 25), 28, 32, 40, 48, 64, 96, 128)
PHASES = ("decode", "inference", "encode")
STATUSES = (200, 400, 413, 415, 500)
# Every series of a model is made when it opens, so that a page of the files is never first
# written to, and never found missing, in the middle of serving.
SPACE_BYTES = 4 << 20

REQUESTS = Counter(
    "skipserve_requests",
    "Requests the workers answered, warm-up included, by HTTP status.",
    ("model", "code"),
)
LATENCY = Histogram(
    "skipserve_request_duration_seconds",
    "Time in the worker of requests answered with 200, from the first byte decoded to the reply "
    "encoded, their batch included; depth is skipped if any row left out a block, else full.",
    ("model", "depth"),
    buckets=BUCKETS,
)
PHASE = Histogram(
    "skipserve_phase_duration_seconds",
    "Time of one batch in one phase.",
    ("model", "phase"),
    buckets=BUCKETS,
)
BATCH = Histogram(
    "skipserve_batch_rows",
    "Rows that ran together.",
    ("model",),
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
ROWS = Counter(
    "skipserve_rows", "Rows that ran, by whether the router was on.", ("model", "router")
)
BLOCK_ROWS = Counter(
    "skipserve_block_rows",
    "Rows with the router on that ran or skipped a block; blocks count from 1.",
    ("model", "block", "action"),
)
DEPTH_RUN = Histogram(
    "skipserve_depth_run_blocks",
    "Blocks run for a row with the router on.",
    ("model",),
    buckets=DEPTHS,
)
HELD_BACK = Counter(
    "skipserve_guard_held_back_rows", "Rows the guard sent to full depth.", ("model",)
)
SIGNAL_ROWS = Counter(
    "skipserve_signal_rows",
    "Rows by the tenth of the calibration's distribution in which their signal at a decision lay; "
    "a tenth of them each if nothing drifted.",
    ("model", "stage", "bin"),
)
SHADOW_ROWS = Counter(
    "skipserve_shadow_rows", "Rows run a second time to compare the answers.", ("model", "risk")
)
DISAGREEMENTS = Counter(
    "skipserve_shadow_disagreements",
    "Shadow rows whose routed answer differed from full depth.",
    ("model", "risk"),
)
DROPPED = Counter(
    "skipserve_shadow_dropped_rows",
    "Rows drawn for a shadow run that found no time for it.",
    ("model",),
)
INFO = Gauge(
    "skipserve_model_info",
    "1 for each worker's model, with what it really runs on.",
    ("model", "backend", "provider", "precision", "checkpoint"),
    multiprocess_mode="livemax",
)
FALLBACK = Gauge(
    "skipserve_provider_fallback",
    "1 if the model runs on the CPU although the machine has a GPU.",
    ("model",),
    multiprocess_mode="livemax",
)
CERTIFIED_RISK = Gauge(
    "skipserve_certified_risk_ratio",
    "Certified rate of disagreement that a request gets which asks for nothing; absent if none.",
    ("model",),
    multiprocess_mode="livemax",
)
THRESHOLD = Gauge(
    "skipserve_threshold",
    "Signal from which a row skips, by stage, for a request that asks for nothing.",
    ("model", "stage"),
    multiprocess_mode="livemax",
)

logger = logging.getLogger(__name__)


class ModelMetrics:
    """The metrics of one model in one worker, their labels bound once.

    Args:
        engine: The open model.
        default: What a request gets that asks for nothing.
    """

    def __init__(self, engine: Engine, default: Setting) -> None:
        manifest = engine.manifest
        model = self._model = manifest.name
        self._depth = manifest.depth
        self._requests = {code: REQUESTS.labels(model, str(code)) for code in STATUSES}
        self._latency = {depth: LATENCY.labels(model, depth) for depth in ("full", "skipped")}
        self._phases = {phase: PHASE.labels(model, phase) for phase in PHASES}
        self._batch = BATCH.labels(model)
        self._off = ROWS.labels(model, "off")
        spec = self._router = manifest.router
        if spec is not None:
            ends = np.array([0, *spec.decisions, self._depth])
            self._stage_lengths = np.diff(ends)
            self._on = ROWS.labels(model, "on")
            blocks = range(1, self._depth + 1)
            self._run = [BLOCK_ROWS.labels(model, str(block), "run") for block in blocks]
            self._skipped = [BLOCK_ROWS.labels(model, str(block), "skipped") for block in blocks]
            self._depth_run = DEPTH_RUN.labels(model)
            self._held_back = HELD_BACK.labels(model)
            risks = {risk: str(risk) for risk in engine.certified()}
            self._shadow = {risk: SHADOW_ROWS.labels(model, name) for risk, name in risks.items()}
            self._disagreed = {risk: DISAGREEMENTS.labels(model, n) for risk, n in risks.items()}
            self._dropped = DROPPED.labels(model)
            certified = [(of, risk) for of in MEASURES for risk in engine.certified(of)]
            self._places: dict[tuple[Measure, float | None], int] = {
                one: place for place, one in enumerate(certified)
            }
            self._open_signals(engine, certified)
        INFO.labels(
            model,
            engine.backend,
            engine.provider,
            engine.precision,
            manifest.checkpoint_sha256[:12],
        ).set(1)
        FALLBACK.labels(model).set(int(engine.fell_back))
        if default.risk is not None:
            CERTIFIED_RISK.labels(model).set(default.risk)
            for stage, threshold in enumerate(default.thresholds.tolist(), 1):
                THRESHOLD.labels(model, str(stage)).set(threshold)

    def requests(self, statuses: Sequence[int], skipped: int, duration_s: float) -> None:
        """Count the answered requests of one batch, all of which took as long as it did.

        Args:
            statuses: HTTP status of each.
            skipped: How many of those with 200 have a row that left out a block.
            duration_s: Seconds.
        """
        found = Tally(statuses)
        for status, count in found.items():
            if status not in self._requests:
                self._requests[status] = REQUESTS.labels(self._model, str(status))
            self._requests[status].inc(count)
        _observe(self._latency["full"], duration_s, found[200] - skipped)
        _observe(self._latency["skipped"], duration_s, skipped)

    def phases(self, rows: int, decode_s: float, inference_s: float, encode_s: float) -> None:
        """Observe one batch; phases in seconds."""
        if rows:
            _observe(self._batch, rows)
            _observe(self._phases["inference"], inference_s)
        _observe(self._phases["decode"], decode_s)
        _observe(self._phases["encode"], encode_s)

    def _open_signals(self, engine: Engine, certified: Sequence[tuple[Measure, float]]) -> None:
        decisions = len(engine.off.thresholds)
        self._random = np.random.default_rng()
        # NaN where calibration saw too few rows; the last is for rows whose router was off.
        self._deciles = np.full((len(certified) + 1, decisions, BINS - 1), np.nan, np.float32)
        for place, (measure, risk) in enumerate(certified):
            for stage, deciles in enumerate(engine.certified(measure)[risk].deciles):
                self._deciles[place, stage] = deciles or np.nan
        known = [not np.isnan(self._deciles[:, stage, 0]).all() for stage in range(decisions)]
        self._signal_rows = [
            [SIGNAL_ROWS.labels(self._model, str(stage), str(bin_)) for bin_ in range(BINS)]
            if seen
            else []
            for stage, seen in enumerate(known, 1)
        ]

    def rows(self, prediction: Prediction, settings: Sequence[Setting]) -> None:
        """Count the rows of one batch.

        Args:
            prediction: For B rows.
            settings: In force for each of them [B].
        """
        on = np.array([one.risk is not None for one in settings])
        routed = int(np.count_nonzero(on))
        if routed < len(on):
            self._off.inc(len(on) - routed)
        if not routed or prediction.trail is None:
            return
        self._on.inc(routed)
        held = int(np.count_nonzero(prediction.held_back & on))
        if held:
            self._held_back.inc(held)
        depths = np.bincount(prediction.depth_run[on])
        for depth in np.flatnonzero(depths).tolist():
            _observe(self._depth_run, depth, int(depths[depth]))
        signals = prediction.trail.signals()
        ran = self._stages_run(prediction, signals, settings)[on].sum(axis=0)
        blocks = np.repeat([routed, *ran.tolist()], self._stage_lengths)
        for block, count in enumerate(blocks.tolist()):
            if count:
                self._run[block].inc(count)
            if count < routed:
                self._skipped[block].inc(routed - count)
        self._bin(signals, settings)

    def _stages_run(
        self, prediction: Prediction, signals: NDArray[np.float32], settings: Sequence[Setting]
    ) -> NDArray[np.bool_]:
        assert self._router is not None
        if self._router.policy == "exit":
            return prediction.depth_run[:, None] > np.asarray(self._router.decisions)
        below = signals < np.array([one.thresholds for one in settings])
        return below | prediction.held_back[:, None]

    def _bin(self, signals: NDArray[np.float32], settings: Sequence[Setting]) -> None:
        places = [self._places.get((one.measure, one.risk), -1) for one in settings]
        deciles = self._deciles[places]
        row, stage = np.nonzero(~np.isnan(signals) & ~np.isnan(deciles[:, :, 0]))
        bins = bins_of(signals[row, stage], deciles[row, stage], self._random)
        counts = np.bincount(stage * BINS + bins)
        for place in np.flatnonzero(counts).tolist():
            self._signal_rows[place // BINS][place % BINS].inc(int(counts[place]))

    def shadow(self, risk: float, rows: int, disagreements: int) -> None:
        """Count shadow rows that were served at one ε, and those that disagreed."""
        self._shadow[risk].inc(rows)
        if disagreements:
            self._disagreed[risk].inc(disagreements)

    def shadow_dropped(self, rows: int) -> None:
        """Count rows that were drawn and not run."""
        self._dropped.inc(rows)


class NoMetrics(ModelMetrics):
    """Counts nothing: where nothing can be written, and to measure what counting costs."""

    def __init__(self) -> None:
        pass

    def requests(self, statuses: Sequence[int], skipped: int, duration_s: float) -> None:
        """Nothing."""

    def phases(self, rows: int, decode_s: float, inference_s: float, encode_s: float) -> None:
        """Nothing."""

    def rows(self, prediction: Prediction, settings: Sequence[Setting]) -> None:
        """Nothing."""

    def shadow(self, risk: float, rows: int, disagreements: int) -> None:
        """Nothing."""

    def shadow_dropped(self, rows: int) -> None:
        """Nothing."""


def open_metrics(engine: Engine, default: Setting) -> ModelMetrics:
    """The metrics of a model, or :class:`NoMetrics` where they cannot be written.

    A full directory would kill the worker with SIGBUS at the first write to a fresh page, so space
    is asked for first. Serving goes on without metrics, and the log says so.
    """
    directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    try:
        if directory is not None and shutil.disk_usage(directory).free < SPACE_BYTES:
            (Path(directory) / f"gauge_livemax_{os.getpid()}.db").touch()  # it lives all the same
            raise OSError(f"fewer than {SPACE_BYTES >> 20} MiB are free")
        return ModelMetrics(engine, default)
    except OSError as error:
        logger.error(
            "%s serves without metrics: %s cannot be written (%s); make room and restart",
            engine.manifest.name,
            directory,
            error,
        )
        return NoMetrics()


def _observe(histogram: Histogram, value: float, times: int = 1) -> None:
    # prometheus_client observes one at a time, which for a batch of 64 rows takes 0.1 ms.
    if times:
        histogram._sum.inc(value * times)
        histogram._buckets[bisect_left(histogram._upper_bounds, value)].inc(times)
