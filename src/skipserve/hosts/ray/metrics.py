"""Forwarding the metrics of a replica to Ray, whose agents expose them."""

from __future__ import annotations

import math
from typing import Any

from ray.serve.metrics import Counter, Gauge

from skipserve.telemetry.exposition import Exposition


class RayMetrics:
    """Publishes what was counted since the last time; Ray adds its own labels.

    Ray puts ``ray_`` before each name. Its own histograms take single observations; ours are kept
    as what a histogram is in Prometheus, counters by ``le``.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, Any] = {}
        self._given: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def publish(self, metrics: Exposition) -> None:
        """Publish every metric."""
        seen = set()
        for family in metrics.families():
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                seen.add(key)
                made = self._metric(sample.name, family.type, family.documentation, sample.labels)
                if family.type == "gauge":
                    made.set(sample.value, tags=sample.labels)
                elif sample.value > self._given.get(key, 0.0):
                    made.inc(sample.value - self._given.get(key, 0.0), tags=sample.labels)
                self._given[key] = sample.value
        # NaN, because Ray cannot remove a series and an old number would be wrong.
        for name, labels in self._given.keys() - seen:
            self._metrics[name].set(math.nan, tags=dict(labels))
            del self._given[name, labels]

    def _metric(self, name: str, kind: str, description: str, labels: dict[str, str]) -> Any:
        if name not in self._metrics:
            make = Gauge if kind == "gauge" else Counter
            # Ray takes ASCII alone.
            words = description.replace("α", "alpha").encode("ascii", "replace").decode()
            self._metrics[name] = make(name, description=words, tag_keys=tuple(labels))
        return self._metrics[name]
