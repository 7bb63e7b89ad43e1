"""The folders of one running service, and the environment of the processes in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from skipserve.earning.worker_state import DIRECTORY_VARIABLE as EVIDENCE_VARIABLE
from skipserve.hosts.pulse import DIRECTORY_VARIABLE as PULSES_VARIABLE
from skipserve.safety.switch import DIRECTORY_VARIABLE as SWITCHES_VARIABLE


@dataclass(frozen=True)
class Instance:
    """One run of a host, in a directory of its own.

    Attributes:
        directory: Holds everything this run writes; removed with it.
        generation: Of its workers, from 1; a reload makes the next, with models of its own.
    """

    directory: Path
    generation: int = 1

    @property
    def store(self) -> Path:
        """Unpacked archives, one folder a model."""
        return self.directory / self._own("store")

    @property
    def metrics(self) -> Path:
        """Where the workers write their metrics."""
        return self.directory / "metrics"

    @property
    def switches(self) -> Path:
        """Where each model's switch is."""
        return self.directory / "switches"

    @property
    def evidence(self) -> Path:
        """Where each model's state is, as a link to where it outlives this run."""
        return self.directory / "evidence"

    @property
    def pulses(self) -> Path:
        """Where each worker keeps its pulse."""
        return self.directory / self._own("pulses")

    @property
    def plan(self) -> Path:
        """The plan of the host's processes, where they read one."""
        return self.directory / self._own("plan.json")

    @property
    def is_retired(self) -> Path:
        """A file that exists once another generation has replaced this one."""
        return self.directory / self._own("retired")

    @property
    def has_answered(self) -> Path:
        """A file that exists once the models have answered their examples."""
        return self.directory / self._own("answered")

    @property
    def failure(self) -> Path:
        """Where a worker writes why it could not open its models."""
        return self.directory / self._own("failure")

    @property
    def log(self) -> Path:
        """The log of the host and the workers, where they write one."""
        return self.directory / "logs" / "host.log"

    @property
    def scratch(self) -> Path:
        """The instance's own temporary directory."""
        return self.directory / "tmp"

    @property
    def is_ready(self) -> Path:
        """A file that says whether the service is ready."""
        return self.directory / "ready"

    @property
    def rates(self) -> Path:
        """Memory in which the processes count the requests of each key."""
        return self.directory / "rates"

    def make_folders(self) -> None:
        """Make every folder.

        Raises:
            OSError: If the disk is full.
        """
        made = (self.store, self.metrics, self.switches, self.evidence, self.pulses)
        for folder in (*made, self.log.parent, self.scratch):
            folder.mkdir(parents=True, exist_ok=True)

    def _own(self, name: str) -> str:
        return name if self.generation == 1 else f"{name}.{self.generation}"

    def environment(self) -> dict[str, str]:
        """The environment of the host's processes."""
        direct = os.environ.get("no_proxy") or os.environ.get("NO_PROXY")
        direct = ",".join(filter(None, (direct, "localhost,127.0.0.1,::1")))
        return {
            **os.environ,
            # A proxy cannot reach this machine's own ports, such as a collector's of spans.
            **dict.fromkeys(("no_proxy", "NO_PROXY"), direct),
            "TMPDIR": str(self.scratch),
            "TEMP": str(self.scratch),
            "PROMETHEUS_MULTIPROC_DIR": str(self.metrics),
            SWITCHES_VARIABLE: str(self.switches),
            EVIDENCE_VARIABLE: str(self.evidence),
            PULSES_VARIABLE: str(self.pulses),
            # From 1.32 on, ONNX Runtime sends telemetry unless it is disabled.
            # Its thread and its database would not survive the fork of a worker.
            "ORT_DISABLE_TELEMETRY": "1",
            # Thread pools of libraries we do not use; the backends get theirs explicitly.
            "OMP_NUM_THREADS": "1",
        }
