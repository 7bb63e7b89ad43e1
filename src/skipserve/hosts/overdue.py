"""Whether the batches of a process come to an end, where nobody watches over the process."""

from __future__ import annotations

import time

from skipserve.artifacts.archive import Unpacked
from skipserve.hosts.readiness import WorkerRequirement


class Overdue:
    """The batches that run now, at most one of each model."""

    def __init__(self) -> None:
        self._models: dict[str, _OfModel] = {}

    def of(self, one: Unpacked) -> _OfModel:
        """Is told of the batches of a model."""
        limit_s = WorkerRequirement.of(1, one.serving.response_timeout_s).silent_s
        return self._models.setdefault(one.name, _OfModel(limit_s))

    def hanging(self) -> str:
        """Which model has a batch that does not end; empty if none has."""
        now_s = time.monotonic()
        for name, model in self._models.items():
            if model.since_s is not None and now_s - model.since_s > model.limit_s:
                return f"a batch of {name} runs for more than {model.limit_s:g} s"
        return ""


class _OfModel:
    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self.since_s: float | None = None

    def begin(self) -> None:
        """A batch begins."""
        self.since_s = time.monotonic()

    def end(self) -> None:
        """It ended."""
        self.since_s = None
