"""Latencies as an HDR histogram: 1 µs to one hour, to three significant digits, mergeable.

HdrHistogram (Gil Tene, http://hdrhistogram.org); its compressed encoding is what reports hold.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from hdrh.histogram import HdrHistogram
from numpy.typing import NDArray

LONGEST_S = 3600.0
DIGITS = 3


class Histogram:
    """Durations in seconds."""

    def __init__(self) -> None:
        # 4-byte counters: four thousand million of one value are enough.
        self._hdr = HdrHistogram(1, round(LONGEST_S * 1e6), DIGITS, word_size=4)
        self._pending: list[float] = []

    def record(self, duration_s: float) -> None:
        """Count one duration; beyond the range it counts as the end of it."""
        # The library takes 5 µs a value, too much between two requests: it gets them later.
        self._pending.append(duration_s)

    def add(self, other: Histogram) -> None:
        """Count everything that another one has counted."""
        self._counted().add(other._counted())

    def __len__(self) -> int:
        return int(self._counted().total_count)

    def _counted(self) -> HdrHistogram:
        if self._pending:
            ticks = np.rint(np.array(self._pending) * 1e6).clip(0, LONGEST_S * 1e6)
            for value, count in zip(*np.unique(ticks, return_counts=True), strict=True):
                self._hdr.record_value(int(value), int(count))
            self._pending.clear()
        return self._hdr

    def bins(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distinct values in rising order [V], seconds, each the top of its bin; counts [V]."""
        hdr = self._counted()
        counts = np.frombuffer(hdr.counts, dtype=np.uint32).astype(np.int64)
        hit = np.flatnonzero(counts)
        tops = [
            hdr.get_highest_equivalent_value(hdr.get_value_from_index(int(index))) for index in hit
        ]
        return np.array(tops, dtype=np.float64) / 1e6, counts[hit]

    def at_ranks(self, ranks: Iterable[int]) -> list[float]:
        """Order statistics in seconds; rank 1 is the smallest.

        Raises:
            IndexError: If a rank is not between 1 and the number of durations.
        """
        values, counts = self.bins()
        ends = counts.cumsum()
        asked = np.asarray(list(ranks), dtype=np.int64)
        if asked.size and (asked.min() < 1 or asked.max() > len(self)):
            raise IndexError(f"ranks {asked.tolist()} of {len(self)} durations")
        found: list[float] = values[np.searchsorted(ends, asked)].tolist()
        return found

    def percentile(self, percent: float) -> float:
        """Smallest duration that at least ``percent`` of all do not exceed, in seconds.

        NaN if nothing was recorded.
        """
        if len(self) == 0:
            return float("nan")
        # 99.9 % of 1000 is 999, whatever the floating point product says.
        rank = int(np.ceil(round(percent * len(self) / 100, 6)))
        return self.at_ranks([max(rank, 1)])[0]

    def mean(self) -> float:
        """Mean in seconds; NaN if nothing was recorded."""
        values, counts = self.bins()
        return float(values @ counts / counts.sum()) if len(self) else float("nan")

    def encode(self) -> str:
        """The V2 compressed encoding in base64, as every HdrHistogram library reads it."""
        text: str = self._counted().encode().decode()
        return text

    @classmethod
    def decode(cls, text: str) -> Histogram:
        """The inverse of :meth:`encode`.

        Raises:
            ValueError: If it is not such a text.
        """
        made = cls()
        try:
            made._hdr.decode_and_add(text)
        except Exception as error:
            # The library raises half a dozen unrelated types.
            raise ValueError(f"not an encoded HDR histogram: {error!r}") from None
        return made
