"""Prometheus metrics of the workers; the only module that knows prometheus_client.

Workers write to the directory that ``PROMETHEUS_MULTIPROC_DIR`` names; the launcher reads what all
of them wrote. Counts outlive the worker that made them.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from skipserve.runtime.engine import Engine

# Seconds; 100 µs to 10 s with an edge at exactly 15 ms, the target of the service.
BUCKETS = (
    *(0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075),
    *(0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
PHASES = ("decode", "inference", "encode")

REQUESTS = Counter(
    "skipserve_requests",
    "Requests the workers answered, warm-up included, by HTTP status.",
    ("model", "code"),
)
LATENCY = Histogram(
    "skipserve_request_duration_seconds",
    "Time in the worker from the first byte decoded to the reply encoded, its batch included.",
    ("model",),
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


class ModelMetrics:
    """The metrics of one model in one worker, their labels bound once."""

    def __init__(self, engine: Engine) -> None:
        model = engine.manifest.name
        self._model = model
        self._requests: dict[int, Counter] = {}
        self._latency = LATENCY.labels(model)
        self._phases = {phase: PHASE.labels(model, phase) for phase in PHASES}
        self._batch = BATCH.labels(model)
        checkpoint = engine.manifest.checkpoint_sha256[:12]
        INFO.labels(model, engine.backend, engine.provider, engine.precision, checkpoint).set(1)
        FALLBACK.labels(model).set(int(engine.fell_back))

    def requests(self, statuses: Iterable[int], duration_s: float) -> None:
        """Count the answered requests of one batch, all of which took as long as it did."""
        for status, count in collections.Counter(statuses).items():
            if status not in self._requests:
                self._requests[status] = REQUESTS.labels(self._model, str(status))
            self._requests[status].inc(count)
            for _ in range(count):
                self._latency.observe(duration_s)

    def batch(self, rows: int, decode_s: float, inference_s: float, encode_s: float) -> None:
        """Observe one batch; phases in seconds."""
        if rows:
            self._batch.observe(rows)
            self._phases["inference"].observe(inference_s)
        self._phases["decode"].observe(decode_s)
        self._phases["encode"].observe(encode_s)


def exposition(directory: Path) -> tuple[bytes, str]:
    """Everything the workers wrote to ``directory``: the text and its content type."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(directory))  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def live_workers(directory: Path) -> int:
    """Workers that have their model open: each keeps a file of live gauges."""
    return len(list(directory.glob("gauge_livemax_*.db")))


def forget_gauges_of(pid: int, directory: Path) -> None:
    """Drop the live gauges of a worker that is gone; its counts stay."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
