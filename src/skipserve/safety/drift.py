"""Drift of the signal: where today's lie in the distribution that calibration saw."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

BINS = 10
WINDOW_S = 600.0
# Fewer rows say nothing: of n rows chance alone makes an index of about 9 / n.
ROWS_AT_LEAST = 500


def bins_of(
    signals: NDArray[np.float32], deciles: NDArray[np.float32], random: np.random.Generator
) -> NDArray[np.int64]:
    """The tenth of the calibration's distribution in which each signal lies.

    Args:
        signals: [T].
        deciles: Of the decision that each was seen at [T, 9].
        random: Shares out a signal that equals several deciles, such as a confidence of exactly 1.

    Returns:
        0 to 9 [T].
    """
    values = signals[:, None]
    low = np.asarray((deciles < values).sum(axis=1), dtype=np.int64)
    high = (deciles <= values).sum(axis=1)
    tied = high > low
    if tied.any():
        low[tied] = random.integers(low[tied], high[tied], endpoint=True)
    return low


def stability_index(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Population stability index of counts [..., 10] against a tenth in each bin.

    ``Σ (p − q) ln(p / q)``; by convention below 0.1 nothing happened, above 0.25 a lot did. Half a
    row is added to each bin, so that an empty one is not an infinity.
    """
    share = (counts + 0.5) / (counts + 0.5).sum(axis=-1, keepdims=True)
    index: NDArray[np.float64] = ((share - 1 / BINS) * np.log(share * BINS)).sum(axis=-1)
    return index


class Window:
    """Counts that only ever grow, as their growth over the last ten minutes."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, NDArray[np.float64]]] = deque()

    def begin(self, now_s: float, counts: NDArray[np.float64]) -> None:
        """Forget what there was, and count from here."""
        self._seen.clear()
        self._seen.append((now_s, counts))

    def growth(self, now_s: float, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Take in counts at a time (monotonic, seconds), and return what came in the window."""
        if self._seen and self._seen[-1][1].shape != counts.shape:
            self._seen.clear()  # another artifact of the same name
        if not self._seen:
            self._seen.append((now_s, np.zeros_like(counts)))
        elif now_s - self._seen[-1][0] >= WINDOW_S / 60:
            self._seen.append((now_s, counts))
        while len(self._seen) > 1 and self._seen[1][0] <= now_s - WINDOW_S:
            self._seen.popleft()
        return counts - self._seen[0][1]
