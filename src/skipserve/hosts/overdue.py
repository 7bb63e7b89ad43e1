"""Detecting hung batches in a process without a launcher."""

from __future__ import annotations

import time

from skipserve.artifacts.archive import Unpacked
from skipserve.hosts.readiness import WorkerRequirement


class Overdue:
    """The running batches, at most one of each model."""

    def __init__(self) -> None:
        self._models: dict[str, _OfModel] = {}

    def of(self, one: Unpacked) -> _OfModel:
        """The watch of one model's batches."""
        limit_s = WorkerRequirement.of(1, one.serving.response_timeout_s).silent_s
        return self._models.setdefault(one.name, _OfModel(limit_s))

    def hanging(self) -> str:
        """The name of a model with a hung batch; empty if there is none."""
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
        """A batch ends."""
        self.since_s = None
