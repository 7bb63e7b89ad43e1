"""What a service says of evidence rows, kept for a test to look at."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from skipserve.earning.ladder import Ladder
from skipserve.runtime.shown import Shown
from skipserve.telemetry.opening import NoMetrics


class Kept:
    """Keeps what evidence says, epoch by epoch."""

    def __init__(self) -> None:
        self.rows: Counter[int] = Counter()
        self.disagreements: dict[int, NDArray[np.int64]] = {}
        self.blocks: dict[int, NDArray[np.int64]] = {}
        self.dropped = 0
        self.shown: list[tuple[int, Shown]] = []
        self.ladders: dict[str, Ladder] = {}
        self.proposals: set[str] = set()

    def add(
        self,
        epoch: int,
        rows: int,
        disagreements: NDArray[np.int64],
        blocks: NDArray[np.int64],
        dropped: int = 0,
        proposal: str = "",
    ) -> None:
        self.proposals.add(proposal)
        self.rows[epoch] += rows
        self.disagreements[epoch] = self.disagreements.get(epoch, 0) + disagreements
        self.blocks[epoch] = self.blocks.get(epoch, 0) + blocks
        self.dropped += dropped

    def show(self, epoch: int, shown: Shown) -> None:
        self.shown.append((epoch, shown))

    def ladder(self, proposal: str) -> Ladder | None:
        return self.ladders.get(proposal)

    def close(self) -> None:
        """Nothing is open."""


class Told(NoMetrics):
    """Keeps what is counted of the rows in force."""

    def __init__(self) -> None:
        self.rows: Counter[float] = Counter()

    def evidence(self, of_slice: str, risk: float, rows: int, disagreements: int) -> None:
        self.rows[risk] += rows
