"""Comparing two runs: what is faster or slower beyond noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.loadtest.results import Arm, Report
from skipserve.loadtest.tally import Tally

PERCENTS = (50.0, 90.0, 99.0)
ROUNDS = 1000
# Several measures are compared, so the confidence is high.
CONFIDENCE = 0.99
FEWEST_SLICES = 6


@dataclass(frozen=True)
class Change:
    """One measure in two runs.

    Attributes:
        what: Such as ``p50, as asked``.
        old_s: In the earlier run, seconds.
        new_s: In this one.
        low: Lower end of the ratio new / old at 99 %.
        high: Upper end.
        verdict: ``faster``, ``slower``, ``no difference beyond noise`` or ``cannot tell``.
    """

    what: str
    old_s: float
    new_s: float
    low: float
    high: float
    verdict: str

    def __str__(self) -> str:
        return (
            f"{self.what}: {self.verdict}; {self.old_s * 1e3:.3g} ms before, "
            f"{self.new_s * 1e3:.3g} ms now, ratio {self.new_s / self.old_s:.2f} "
            f"({self.low:.2f} to {self.high:.2f})"
        )


def compare_reports(old: Report, new: Report) -> list[Change]:
    """Latency from the moment due, as asked and of the baseline.

    If the baseline changed too, the machine did, and not the router.
    """
    changes = _compare(old.asked, new.asked, "as asked")
    if old.baseline and new.baseline:
        changes += _compare(old.baseline, new.baseline, "baseline")
    return changes


def ratio_intervals(
    old: Sequence[Tally],
    new: Sequence[Tally],
    percents: Sequence[float],
    seed: int = 0,
) -> list[tuple[float, float]]:
    """Intervals for the ratio of percentiles, by a bootstrap over slices of time.

    Slices, not requests, are drawn, because requests that are neighbours wait for the same things
    (block bootstrap: Künsch, Annals of Statistics 1989).

    Args:
        old: Slices of the earlier run.
        new: Slices of this one.
        percents: Which percentiles.
        seed: Of the draws.

    Returns:
        Lower and upper end at 99 % for each percentile.
    """
    rng = np.random.default_rng(seed)
    ratios = _resampled(new, percents, rng) / _resampled(old, percents, rng)
    tail = 100 * (1 - CONFIDENCE) / 2
    ends = np.percentile(ratios, [tail, 100 - tail], axis=0)
    return [(float(low), float(high)) for low, high in ends.T]


def _compare(old: Arm, new: Arm, which: str) -> list[Change]:
    before = [tally for _, _, tally in old.slices]
    after = [tally for _, _, tally in new.slices]
    if not before or not after:
        return []
    intervals = ratio_intervals(before, after, PERCENTS)
    enough = min(len(before), len(after)) >= FEWEST_SLICES
    return [
        Change(
            f"p{percent:g}, {which}",
            old.total.corrected.percentile(percent),
            new.total.corrected.percentile(percent),
            low,
            high,
            _verdict(low, high) if enough else "cannot tell, the runs are too short",
        )
        for percent, (low, high) in zip(PERCENTS, intervals, strict=True)
    ]


def _verdict(low: float, high: float) -> str:
    if high < 1:
        return "faster"
    return "slower" if low > 1 else "no difference beyond noise"


def _resampled(
    slices: Sequence[Tally], percents: Sequence[float], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Percentiles [ROUNDS, P] of slices drawn with replacement."""
    bins = [tally.corrected.bins() for tally in slices]
    values = np.unique(np.concatenate([value for value, _ in bins]))
    counts = np.zeros((len(slices), len(values)))
    for row, (value, count) in zip(counts, bins, strict=True):
        row[np.searchsorted(values, value)] = count
    drawn = rng.multinomial(len(slices), np.full(len(slices), 1 / len(slices)), ROUNDS)
    ends = (drawn @ counts).cumsum(axis=1)
    columns = [
        values[(ends >= percent / 100 * ends[:, -1:]).argmax(axis=1)] for percent in percents
    ]
    return np.stack(columns, axis=1)
