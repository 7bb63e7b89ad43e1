"""Intervals for percentiles, without assuming a distribution."""

from __future__ import annotations

import math
from dataclasses import dataclass

from skipserve.intervals import samples_needed
from skipserve.loadtest.histogram import Histogram

# Of each end of an interval.
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
    from scipy.stats import binom  # takes a second

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


def samples_for(percent: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples that give a percentile an upper end."""
    return samples_needed(1 - percent / 100, confidence)
