"""What the workers wrote, without what holds no longer: a worker says it once, and may be idle."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

CERTIFIED_RISK = "skipserve_certified_risk_ratio"


class Holding(Collector):
    """Metrics of the workers, of which the launcher knows which hold.

    Args:
        counts: What they wrote.

    Attributes:
        withdrawn: Models of which no certificate is in force.
    """

    def __init__(self, counts: Collector) -> None:
        self._counts = counts
        self.withdrawn: set[str] = set()

    def collect(self) -> Iterable[Metric]:
        """All that holds."""
        for metric in self._counts.collect():
            if metric.name == CERTIFIED_RISK:
                held = [one for one in metric.samples if one.labels["model"] not in self.withdrawn]
                metric.samples = held
            yield metric
