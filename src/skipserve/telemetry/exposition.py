"""The launcher's side of the metrics: what all workers wrote, and what only the launcher knows."""

from __future__ import annotations

import contextlib
import platform
import shutil
import struct
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from pathlib import Path

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from skipserve.versions import version_if_installed, version_of

disable_created_metrics()  # type: ignore[no-untyped-call]  # a gauge more for each counter

PREFIX = "skipserve_"
ATTEMPTS = 5
# The first write to a mapped page that a full disk cannot give ends a process with SIGBUS: whoever
# is about to make files looks for so much room before.
SPACE_BYTES = 4 << 20
Samples = dict[str, list[tuple[dict[str, str], float]]]
STATES = ("on", "off", "uncertified", "fell_back", "disabled")


class LostCounts(OSError):
    """Files of the workers are gone that nobody but the launcher may take away."""


class Exposition:
    """What ``/metrics`` shows.

    Args:
        directory: Where the workers write; without, this process is the only one.

    Attributes:
        router_state: One of :data:`STATES` is 1.
        fallbacks: Times the alarm switched skipping off.
        evidence: Wealth of the betting martingale against the certificate.
        clean_evidence: Wealth of the opposite bet, while the model has fallen back.
        alarm_level: Where either of them throws the switch.
        drift: Population stability index of the signal over a sliding window.
        restarts: Workers that died and were started again.
    """

    def __init__(self, directory: Path | None = None) -> None:
        registry = self._registry = CollectorRegistry()
        self._counts = _Here() if directory is None else _Workers(directory)
        registry.register(self._counts)
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

    def forget(self, model: str, stages: int) -> None:
        """Take away what is shown of a router that is served no more; what was counted stays.

        Args:
            model: Name of the model.
            stages: How many it had.
        """
        for state in STATES:
            self.show(self.router_state, None, model, state)
        for gauge in (self.evidence, self.clean_evidence, self.alarm_level):
            self.show(gauge, None, model)
        for stage in range(1, stages + 1):
            self.show(self.drift, None, model, str(stage))

    def show(self, gauge: Gauge, value: float | None, *labels: str) -> None:
        """Set a gauge; ``None`` takes the series away: no number is better than an old one."""
        if value is not None:
            gauge.labels(*labels).set(value)
        else:
            with contextlib.suppress(KeyError):
                gauge.remove(*labels)

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


class _Here(Collector):
    """What this process counted since this was made."""

    def __init__(self) -> None:
        self._before = {
            self._key(sample): sample.value
            for metric in self._ours()
            for sample in metric.samples
            if metric.type != "gauge"
        }

    def collect(self) -> Iterable[Metric]:
        return self.read("*")

    def read(self, pattern: str) -> list[Metric]:
        found = self._ours()
        for metric in found:
            metric.samples = [
                sample._replace(value=sample.value - self._before.get(self._key(sample), 0.0))
                for sample in metric.samples
            ]
        return found

    def writers(self) -> set[int]:
        return set()

    def retire(self, pid: int) -> None:
        """Nobody's."""

    def _ours(self) -> list[Metric]:
        # Libraries count there, too.
        return [metric for metric in REGISTRY.collect() if metric.name.startswith(PREFIX)]

    @staticmethod
    def _key(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
        return sample.name, frozenset(sample.labels.items())


class _Workers(Collector):
    """The files of all workers, those that are gone included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()  # held by whoever reads, and while files are put together
        self._seen: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        return self.read("*.db")

    def read(self, pattern: str) -> list[Metric]:
        for _ in range(ATTEMPTS):
            try:
                with self._lock:
                    # A file without content is one that a worker is just creating.
                    self._notice()
                    files = [str(f) for f in self._directory.glob(pattern) if f.stat().st_size]
                    merged = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
                    self._seen.update(Path(file).name for file in files)
                return list(merged)
            except (FileNotFoundError, RuntimeError, ValueError, struct.error) as error:
                problem = error  # a worker has just gone, or is growing its file
                time.sleep(0.01)
        raise OSError(f"the workers' metrics in {self._directory} cannot be read: {problem}")

    def writers(self) -> set[int]:
        numbers = (file.stem.rpartition("_")[2] for file in self._directory.glob("*.db"))
        return {int(number) for number in numbers if number.isdigit()} - {0}

    def _notice(self) -> None:
        # Nobody but retire() takes files away; what is lost otherwise would lower the counts.
        gone = self._seen - {file.name for file in self._directory.glob("*.db")}
        if gone:
            lost = ", ".join(sorted(gone))
            raise LostCounts(f"{lost} in {self._directory} was deleted, and the counts in it")

    def retire(self, pid: int) -> None:
        with self._lock:
            self._notice()
            mark_process_dead(pid, str(self._directory))  # type: ignore[no-untyped-call]
            if shutil.disk_usage(self._directory).free >= SPACE_BYTES:
                for kind in ("counter", "histogram"):
                    self._put_together(kind, pid)
            self._seen = {name for name in self._seen if (self._directory / name).exists()}

    def _put_together(self, kind: str, pid: int) -> None:
        # Keys and values of such files simply add up; no process has the number 0.
        dead, all_dead = (self._directory / f"{kind}_{number}.db" for number in (pid, 0))
        sums: Tally[str] = Tally()
        for file in (dead, all_dead):
            if file.exists() and file.stat().st_size:
                values = MmapedDict.read_all_values_from_file(str(file))  # type: ignore[no-untyped-call]
                sums.update({key: value for key, value, _, _ in values})
        if sums:
            fresh = self._directory / f"{kind}.fresh"
            fresh.unlink(missing_ok=True)
            written = MmapedDict(str(fresh))  # type: ignore[no-untyped-call]
            for key, value in sums.items():
                written.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
            written.close()  # type: ignore[no-untyped-call]
            fresh.replace(all_dead)
        dead.unlink(missing_ok=True)
