"""A counted rate with its exact interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import binomtest


@dataclass(frozen=True)
class Rate:
    """So many of so many, and where the true rate lies.

    Attributes:
        count: Rows it happened to.
        total: Rows looked at.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    count: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The rate that was seen; NaN if nothing was looked at."""
        return self.count / self.total if self.total else float("nan")

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"


def percent(value: float) -> str:
    """A chosen rate, such as a risk, in as few digits as it takes."""
    return f"{100 * value:.3g}%"


def rate(count: int, total: int, confidence: float = 0.95) -> Rate:
    """A rate with its two-sided exact binomial interval (Clopper and Pearson, 1934)."""
    if not total:
        return Rate(count, total, 0.0, 1.0)
    found = binomtest(count, total).proportion_ci(confidence)
    return Rate(count, total, float(found.low), float(found.high))
