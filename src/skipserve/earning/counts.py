"""Counts of evidence: all that what a candidate has proved depends on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Counts:
    """Evidence of one epoch.

    Attributes:
        rows: Evidence rows.
        disagreements: Of each candidate [candidates], int64.
        blocks: That each candidate would have run for these rows [candidates], int64; proves
            nothing, says what a candidate would save.
        dropped: Rows that were drawn and could not be run.
    """

    rows: int
    disagreements: NDArray[np.int64]
    blocks: NDArray[np.int64]
    dropped: int = 0

    @staticmethod
    def none(candidates: int) -> Counts:
        """Nothing seen."""
        zeros = np.zeros(candidates, dtype=np.int64)
        return Counts(0, zeros, zeros)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows,
            self.disagreements + other.disagreements,
            self.blocks + other.blocks,
            self.dropped + other.dropped,
        )
