"""The ``/metrics`` of the launcher: counts of all workers, and gauges of its own."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from skipserve.earning.progress import Progress
from skipserve.telemetry.counts import Here, Workers
from skipserve.telemetry.earning import EarningGauges, forget, show
from skipserve.telemetry.holding import Holding
from skipserve.versions import version_if_installed, version_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter

Samples = dict[str, list[tuple[dict[str, str], float]]]
STATES = ("on", "off", "uncertified", "fell_back", "disabled")


class Exposition:
    """The content of ``/metrics``.

    Args:
        directory: Where the workers write; without, this process is the only one.

    Attributes:
        router_state: One of :data:`STATES` is 1.
        fallbacks: Times the alarm switched skipping off.
        evidence: Wealth of the betting martingale against the certificate.
        alarm_level: Where the alarm is raised.
        bolder: Times that traffic has earned something bolder.
        drift: Population stability index of the signal over a sliding window.
        restarts: Workers that died and were started again.
    """

    def __init__(self, directory: Path | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        self._counts = Here() if directory is None else Workers(directory)
        self._holding = Holding(self._counts)
        registry.register(self._holding)
        self.router_state = Gauge(
            "skipserve_router_state",
            "1 for the state the router is in, by default, 0 for the others.",
            ("model", "slice", "state"),
            registry=registry,
        )
        self.fallbacks = Counter(
            "skipserve_router_fallbacks",
            "Times the alarm switched skipping off.",
            ("model", "slice"),
            registry=registry,
        )
        self.evidence = Gauge(
            "skipserve_alarm_evidence",
            "Wealth of a bet that evidence rows disagree more often than certified; from the alarm "
            "level on, what is in force is withdrawn.",
            ("model", "slice"),
            registry=registry,
        )
        self.alarm_level = Gauge(
            "skipserve_alarm_level",
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
        self.bolder = Counter(
            "skipserve_earning_bolder",
            "Times that the traffic of a model has earned something bolder.",
            ("model", "slice"),
            registry=registry,
        )
        self._earning = EarningGauges(registry)
        self._versions = Gauge(
            "skipserve_model_version",
            "Version of the model that answers now; a model's other versions that are served "
            "beside it are models of their own here, NAME@VERSION.",
            ("model",),
            registry=registry,
        )
        self.restarts = Counter(
            "skipserve_worker_restarts",
            "Workers that ended while the service ran and were started again.",
            registry=registry,
        )
        info = Gauge(
            "skipserve_build_info",
            "1, with the versions that serve; of what is not installed, none.",
            ("version", "python", "torchserve", "torch", "onnxruntime"),
            registry=registry,
        )
        may_serve = ("torchserve", "torch", "onnxruntime")
        serving = (version_if_installed(package) or "" for package in may_serve)
        info.labels(version_of("skipserve"), platform.python_version(), *serving).set(1)

    def show_versions(self, versions: Mapping[str, str]) -> None:
        """Show the versions of the served models, and of no others."""
        self._versions.clear()
        for model, version in versions.items():
            self._versions.labels(model).set(int(version))

    def set_state(self, model: str, of_slice: str, state: str) -> None:
        """Show the state of a model's router.

        Args:
            model: Name of the model.
            of_slice: Of its traffic; "" where that is one whole.
            state: One of :data:`STATES`.
        """
        for one in STATES:
            self.router_state.labels(model, of_slice, one).set(int(one == state))
        certified = state not in ("uncertified", "fell_back", "disabled")
        withdrawn, at = self._holding.withdrawn, (model, of_slice)
        (withdrawn.discard if certified else withdrawn.add)(at)

    def forget(self, model: str, stages: int) -> None:
        """Remove the gauges of a router that is no longer served; counters stay.

        Args:
            model: Name of the model.
            stages: How many it had.
        """
        self._holding.forget(model)
        for gauge in (self.router_state, self.evidence, self.alarm_level):
            forget(gauge, model=model)
        self._earning.forget(model)
        for stage in range(1, stages + 1):
            self.show(self.drift, None, model, str(stage))

    def show(self, gauge: Gauge, value: float | None, *labels: str) -> None:
        """Set a gauge; ``None`` removes its series, as no number is better than an old one."""
        show(gauge, value, *labels)

    def show_earning(
        self,
        model: str,
        of_slice: str,
        epoch: int,
        disagreements: Sequence[int],
        found: Sequence[Progress],
        problem: str,
    ) -> None:
        """Show how far a model is with earning; nothing of it where nothing shall be earned.

        Args:
            model: Name of the model.
            of_slice: Of its traffic; "" where that is one whole.
            epoch: The present one.
            disagreements: Of each candidate in it, from careful to bold.
            found: How far each risk is; empty where nothing shall be earned.
            problem: Why nothing can be earned; empty if it can.
        """
        self._earning.show(model, of_slice, epoch, disagreements, found, problem)

    def samples(self, pattern: str) -> Samples:
        """Labels and values of matching series in the files of the workers.

        Raises:
            LostCounts: If files were deleted.
            OSError: If they cannot be read, or change faster than they are read.
        """
        found: Samples = {}
        for metric in self._counts.read(pattern):
            for sample in metric.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def families(self) -> Iterable[Metric]:
        """All metrics, for other ways to expose them.

        Raises:
            OSError: If the workers' files cannot be read, or change faster than they are read.
        """
        return self._registry.collect()

    def retire(self, pid: int) -> None:
        """Retire an ended worker: its live gauges go, its counts are merged.

        In one file for all the dead: a worker that dies every minute must not fill the disk. If
        it is full already, the counts stay where they are.
        """
        self._counts.retire(pid)

    def writers(self) -> set[int]:
        """Processes with files here that were not retired."""
        return self._counts.writers()

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """Everything in the format asked for, and its content type.

        Args:
            accept: A request's ``Accept`` header; Prometheus's text format 0.0.4 by default.

        Raises:
            OSError: If the workers' files cannot be read, or change faster than they are read.
        """
        encode, kind = choose_encoder(accept)
        return encode(self._registry), kind
