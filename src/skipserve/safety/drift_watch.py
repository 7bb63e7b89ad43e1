"""Drift of one model's signal, as the launcher sees it in the counts of its workers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipserve.safety.drift import BINS, ROWS_AT_LEAST, Window, stability_index
from skipserve.telemetry.exposition import Exposition, Samples


class DriftWatch:
    """Shows how far the signal is from calibration, decision by decision.

    Args:
        metrics: Where it is shown.
        model: What it is served as.
        decisions: How many the router has; 0 shows nothing.
    """

    def __init__(self, metrics: Exposition, model: str, decisions: int) -> None:
        self._metrics = metrics
        self._name = model
        self._decisions = decisions
        self._window = Window()

    def begin(self, now_s: float, counts: Samples) -> None:
        """Forget what was counted until now."""
        self._window.begin(now_s, self._seen(counts))

    def show(self, now_s: float, counts: Samples) -> None:
        """Show the drift of the last ten minutes."""
        if not self._decisions:
            return
        recent = self._window.growth(now_s, self._seen(counts))
        for stage, row in enumerate(recent, 1):
            drift = float(stability_index(row)) if row.sum() >= ROWS_AT_LEAST else None
            self._metrics.show(self._metrics.drift, drift, self._name, str(stage))

    def _seen(self, counts: Samples) -> NDArray[np.float64]:
        seen = np.zeros((self._decisions, BINS))
        for labels, value in counts.get("skipserve_signal_rows_total", ()):
            stage = int(labels["stage"])
            # Another artifact of this name may have had more.
            if labels["model"] == self._name and stage <= self._decisions:
                seen[stage - 1, int(labels["bin"])] = value
        return seen
