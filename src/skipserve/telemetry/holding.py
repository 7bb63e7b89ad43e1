"""Metrics of the workers without certificates that are withdrawn: an idle worker cannot do it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CERTIFIED_RISK = "skipserve_certified_risk_ratio"


class Holding(Collector):
    """Metrics of the workers, of which the launcher knows which hold.

    Args:
        counts: What they wrote.

    Attributes:
        withdrawn: Models, each with a slice of its traffic, of which no certificate is in force.
    """

    def __init__(self, counts: Collector) -> None:
        self._counts = counts
        self.withdrawn: set[tuple[str, str]] = set()

    def collect(self) -> Iterable[Metric]:
        """All that holds."""
        for metric in self._counts.collect():
            if metric.name == CERTIFIED_RISK:
                metric.samples = [one for one in metric.samples if self._holds(one.labels)]
            yield metric

    def forget(self, model: str) -> None:
        """Withdraw nothing of a model any more."""
        self.withdrawn = {one for one in self.withdrawn if one[0] != model}

    def _holds(self, labels: Mapping[str, str]) -> bool:
        return (labels["model"], labels.get("slice", "")) not in self.withdrawn
