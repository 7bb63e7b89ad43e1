"""A counted rate with its exact interval."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.stats import beta


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
    tail = (1 - confidence) / 2
    low = 0.0 if count == 0 else float(beta.ppf(tail, count, total - count + 1))
    high = 1.0 if count == total else float(beta.ppf(1 - tail, count + 1, total - count))
    return Rate(count, total, low, high)
