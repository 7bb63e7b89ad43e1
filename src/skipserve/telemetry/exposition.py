"""The launcher's side of the metrics: what all workers wrote, and what only the launcher knows."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from skipserve.earning.progress import Progress
from skipserve.telemetry.counts import Here, Workers
from skipserve.telemetry.earning import EarningGauges, show
from skipserve.telemetry.holding import Holding
from skipserve.versions import version_if_installed, version_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter

Samples = dict[str, list[tuple[dict[str, str], float]]]
STATES = ("on", "off", "uncertified", "fell_back", "disabled")


class Exposition:
    """What ``/metrics`` shows.

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
            "skipserve_alarm_evidence",
            "Wealth of a bet that evidence rows disagree more often than certified; from the alarm "
            "level on, what is in force is withdrawn.",
            ("model",),
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
            ("model",),
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
        """Show the version of each model that is served, and of none else."""
        self._versions.clear()
        for model, version in versions.items():
            self._versions.labels(model).set(int(version))

    def set_state(self, model: str, state: str) -> None:
        """Show the state a model's router is in.

        Args:
            model: Name of the model.
            state: One of :data:`STATES`.
        """
        for one in STATES:
            self.router_state.labels(model, one).set(int(one == state))
        certified = state not in ("uncertified", "fell_back")
        (self._holding.withdrawn.discard if certified else self._holding.withdrawn.add)(model)

    def forget(self, model: str, stages: int) -> None:
        """Take away what is shown of a router that is served no more; what was counted stays.

        Args:
            model: Name of the model.
            stages: How many it had.
        """
        self._holding.withdrawn.discard(model)
        for state in STATES:
            self.show(self.router_state, None, model, state)
        for gauge in (self.evidence, self.alarm_level):
            self.show(gauge, None, model)
        self._earning.forget(model)
        for stage in range(1, stages + 1):
            self.show(self.drift, None, model, str(stage))

    def show(self, gauge: Gauge, value: float | None, *labels: str) -> None:
        """Set a gauge; ``None`` takes the series away: no number is better than an old one."""
        show(gauge, value, *labels)

    def show_earning(
        self,
        model: str,
        epoch: int,
        disagreements: Sequence[int],
        found: Sequence[Progress],
        problem: str,
    ) -> None:
        """Show how far a model is with earning; nothing of it where nothing shall be earned.

        Args:
            model: Name of the model.
            epoch: The present one.
            disagreements: Of each candidate in it, from careful to bold.
            found: How far each risk is; empty where nothing shall be earned.
            problem: Why nothing can be earned; empty if it can.
        """
        self._earning.show(model, epoch, disagreements, found, problem)

    def samples(self, pattern: str) -> Samples:
        """Labels and values of what stands in the workers' files that match, by series.

        Raises:
            LostCounts: If somebody deleted some.
            OSError: If they cannot be read, or change faster than they are read.
        """
        found: Samples = {}
        for metric in self._counts.read(pattern):
            for sample in metric.samples:
                found.setdefault(sample.name, []).append((sample.labels, sample.value))
        return found

    def families(self) -> Iterable[Metric]:
        """Everything, one metric after the other, for whoever shows it in another way.

        Raises:
            OSError: If the workers' files cannot be read, or change faster than they are read.
        """
        return self._registry.collect()

    def retire(self, pid: int) -> None:
        """Take in that a worker is gone: its live gauges go, its counts are kept with the others'.

        In one file for all the dead: a worker that dies every minute must not fill the disk. If
        it is full already, the counts stay where they are.
        """
        self._counts.retire(pid)

    def writers(self) -> set[int]:
        """Processes that have files here and were not retired."""
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
