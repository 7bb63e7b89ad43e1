"""The flat output ``signals`` of a routed file, laid out by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import stops


@dataclass(frozen=True)
class Trail:
    """What the router saw of a whole batch, as the file gives it: read it off the hot path.

    Attributes:
        values: Signals decision by decision, rows in the order of the batch [T], float32.
        depth_run: Blocks run for each row [B].
        decisions: Blocks run when each decision is taken.
        policy: ``exit``: a row gets no further than it runs; ``skip``: it gets to every decision.
    """

    values: NDArray[np.float32]
    depth_run: NDArray[np.int64]
    decisions: tuple[int, ...]
    policy: Literal["exit", "skip"]

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether a row got to a decision [B, decisions]."""
        reached: NDArray[np.bool_] = self.depth_run[:, None] >= np.asarray(self.decisions)
        return reached | (self.policy == "skip")

    def signals(self) -> NDArray[np.float32]:
        """By row and decision [B, decisions], float32; NaN where a row did not get there."""
        reached = self.reached
        signals = np.full(reached.shape, np.nan, dtype=np.float32)
        signals.T[reached.T] = self.values
        return signals

    def ran(self, thresholds: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each row that the guard let pass ran each stage [B, decisions].

        Args:
            thresholds: By row and decision [B, decisions].
        """
        if self.policy == "exit":
            further: NDArray[np.bool_] = self.depth_run[:, None] > np.asarray(self.decisions)
            return further
        return ~stops(self.signals(), thresholds)
