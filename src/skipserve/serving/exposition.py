"""The launcher's side of the metrics: what all workers wrote, and what only the launcher knows."""

from __future__ import annotations

import contextlib
import platform
import struct
import time
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
)
from prometheus_client import generate_latest as text_of
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter

ATTEMPTS = 5
Samples = dict[str, list[tuple[dict[str, str], float]]]
STATES = ("on", "off", "uncertified", "fell_back", "disabled")


class Exposition:
    """What ``/metrics`` shows.

    Args:
        directory: Where the workers write.

    Attributes:
        directory: The same.
        router_state: One of :data:`STATES` is 1.
        fallbacks: Times the alarm switched skipping off.
        evidence: Wealth of the betting martingale against the certificate.
        clean_evidence: Wealth of the opposite bet, while the model has fallen back.
        alarm_level: Where either of them throws the switch.
        drift: Population stability index of the signal over a sliding window.
        restarts: Workers that died and were started again.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        registry = self._registry = CollectorRegistry()
        self._workers = CollectorRegistry()
        self._workers.register(_Workers(directory))
        self.router_state = Gauge(
            "skipserve_router_state",
            "1 for the state the router is in, by default, 0 for the others.",
            ("model", "state"),
            registry=registry,
        )
        self.fallbacks = Counter(
            "skipserve_router_fallbacks",
            "Times the alarm switched skipping off.",
            ("model",),
            registry=registry,
        )
        self.evidence = Gauge(
            "skipserve_shadow_evidence",
            "Wealth of a bet that shadow rows disagree more often than certified; from the alarm "
            "level on, skipping is switched off.",
            ("model",),
            registry=registry,
        )
        self.clean_evidence = Gauge(
            "skipserve_shadow_clean_evidence",
            "Wealth of a bet that shadow rows disagree less often than certified, since the model "
            "fell back; from the alarm level on, skipping is switched on again.",
            ("model",),
            registry=registry,
        )
        self.alarm_level = Gauge(
            "skipserve_shadow_alarm_level",
            "1/α: the evidence at which the alarm is raised.",
            ("model",),
            registry=registry,
        )
        self.drift = Gauge(
            "skipserve_signal_drift_ratio",
            "Population stability index of the signal at a decision against calibration, over a "
            "sliding window.",
            ("model", "stage"),
            registry=registry,
        )
        self.restarts = Counter(
            "skipserve_worker_restarts",
            "Workers that ended while the service ran and were started again.",
            registry=registry,
        )
        info = Gauge(
            "skipserve_build_info",
            "1, with the versions that serve.",
            ("version", "python", "torchserve", "torch", "onnxruntime"),
            registry=registry,
        )
        packages = (version("skipserve"), version("torchserve"), version("torch"), _onnxruntime())
        info.labels(packages[0], platform.python_version(), *packages[1:]).set(1)

    def set_state(self, model: str, state: str) -> None:
        """Show the state a model's router is in.

        Args:
            model: Name of the model.
            state: One of :data:`STATES`.
        """
        for one in STATES:
            self.router_state.labels(model, one).set(int(one == state))

    def show(self, gauge: Gauge, value: float | None, *labels: str) -> None:
        """Set a gauge; ``None`` takes the series away: no number is better than an old one."""
        if value is not None:
            gauge.labels(*labels).set(value)
        else:
            with contextlib.suppress(KeyError):
                gauge.remove(*labels)

    def text(self) -> tuple[bytes, str]:
        """Everything in Prometheus's text format, and its content type.

        Raises:
            OSError: If the workers' files cannot be read, or change faster than they are read.
        """
        return text_of(self._workers) + text_of(self._registry), CONTENT_TYPE_LATEST


class _Workers(Collector):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        return read_files(self._directory, "*.db")


def read_files(directory: Path, pattern: str) -> list[Metric]:
    """The metrics in the workers' files that match, summed over workers, dead ones included.

    Raises:
        OSError: If they cannot be read, or change faster than they are read.
    """
    for _ in range(ATTEMPTS):
        try:
            # A file without content is one that a worker is just creating.
            files = [str(file) for file in directory.glob(pattern) if file.stat().st_size]
            merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
            return list(merged)
        except (FileNotFoundError, RuntimeError, ValueError, struct.error) as error:
            problem = error  # a worker has just gone, or is growing its file
            time.sleep(0.01)
    raise OSError(f"the workers' metrics in {directory} cannot be read: {problem}")


def read_samples(directory: Path, pattern: str) -> Samples:
    """The same as labels and values, by the name of the series.

    Raises:
        OSError: If they cannot be read, or change faster than they are read.
    """
    found: Samples = {}
    for metric in read_files(directory, pattern):
        for sample in metric.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def live_workers(directory: Path) -> int:
    """Workers that have their model open: each keeps a file of live gauges."""
    return len(list(directory.glob("gauge_livemax_*.db")))


def forget_gauges_of(pid: int, directory: Path) -> None:
    """Drop the live gauges of a worker that is gone; its counts stay."""
    mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]


def _onnxruntime() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with contextlib.suppress(PackageNotFoundError):
            return version(name)
    return "none"
