"""What a sample can say: intervals for percentiles and for rates, without assuming a shape."""

from __future__ import annotations

import math
from dataclasses import dataclass

from scipy.stats import binom, binomtest

from skipserve.loadtest.histogram import Histogram

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with one-sided bounds, each at the asked confidence.

    Attributes:
        value: The estimate; NaN if there is no sample.
        low: Lower end.
        high: Upper end; infinite if the sample is too small to have one.
    """

    value: float
    low: float
    high: float


def percentile_interval(
    sample: Histogram, percent: float, confidence: float = CONFIDENCE
) -> Interval:
    """A percentile between two order statistics (David and Nagaraja, Order Statistics, 7.1).

    Assumes independent samples. Latencies of neighbours are not quite that, so the interval of a
    run with long stalls is narrower than it ought to be.

    Args:
        sample: Durations.
        percent: Between 0 and 100.
        confidence: Of each end.
    """
    count = len(sample)
    if count == 0:
        return Interval(math.nan, 0.0, math.inf)
    share = percent / 100
    # The j-th smallest lies above the percentile with probability P(Bin(n, p) < j).
    upper = int(binom.ppf(confidence, count, share)) + 1
    lower = int(binom.ppf(1 - confidence, count, share))
    return Interval(
        sample.percentile(percent),
        sample.at_ranks([lower])[0] if lower >= 1 else 0.0,
        sample.at_ranks([upper])[0] if upper <= count else math.inf,
    )


def samples_needed(percent: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples whose largest is an upper end for a percentile: p50 5, p99 299, p99.9 2995."""
    return math.ceil(math.log(1 - confidence) / math.log(percent / 100))


def rate_interval(hits: int, count: int, confidence: float = CONFIDENCE) -> Interval:
    """A rate with its exact binomial ends (Clopper and Pearson, Biometrika 1934)."""
    if count == 0:
        return Interval(math.nan, 0.0, 1.0)
    # Two-sided at 90 % is one-sided at 95 %, at each end.
    found = binomtest(hits, count).proportion_ci(2 * confidence - 1)
    return Interval(hits / count, float(found.low), float(found.high))
