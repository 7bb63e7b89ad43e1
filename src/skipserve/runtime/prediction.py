"""What goes into the engine beside rows, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.artifacts.trail import Trail
from skipserve.errors import InputError


@dataclass(frozen=True)
class Setting:
    """What a request asks of the router, resolved to numbers.

    Attributes:
        thresholds: [decisions], float32; +inf runs everything.
        guard_limit: +inf holds nothing back.
        risk: The ε in force, or ``None`` at full depth.
        measure: What ε bounds: ``disagreement`` with full depth, or ``accuracy_lost``.
        reason: Why a router that was asked for is off; empty if it is on or was not asked for.
    """

    thresholds: NDArray[np.float32]
    guard_limit: float
    risk: float | None = None
    reason: str = ""
    measure: Measure = "disagreement"


@dataclass(frozen=True)
class Prediction:
    """Answers for a batch of B rows.

    Attributes:
        labels: Class of the largest probability [B], int64.
        probabilities: [B, classes], float32.
        depth_run: Blocks run for each row [B], int64.
        held_back: Rows the guard sent to full depth [B], bool.
        trail: Of the batch the rows ran in; ``None`` without a router, and for a part of a batch.
        reran: Rows that overflowed FP16 and were answered by the FP32 file [B], bool; ``None`` if
            there are none, for a part of a batch, and for several batches.
    """

    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    trail: Trail | None = None
    reran: NDArray[np.bool_] | None = None

    def rows(self, first: int, last: int) -> Prediction:
        """The answers for rows ``first`` to ``last`` (exclusive)."""
        part = slice(first, last)
        return Prediction(
            self.labels[part],
            self.probabilities[part],
            self.depth_run[part],
            self.held_back[part],
        )


def joined(parts: Sequence[Prediction]) -> Prediction:
    """The answers of several batches of one model, at least one, as if of a single one."""
    depth_run = np.concatenate([part.depth_run for part in parts])
    trails = [part.trail for part in parts if part.trail is not None]
    trail = None
    if len(trails) == len(parts):
        trail = replace(trails[0], depth_run=depth_run)
        signals = np.concatenate([one.signals() for one in trails])
        trail = replace(trail, values=signals.T[trail.reached.T])
    return Prediction(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        depth_run,
        np.concatenate([part.held_back for part in parts]),
        trail,
    )


def overflow(answers: Prediction) -> InputError:
    """The error for finite rows whose answer is not."""
    row = int(np.argmin(np.isfinite(answers.probabilities).all(axis=1)))
    return InputError(
        "not_finite",
        f"row {row} is finite but overflows inside the network; "
        "expected features like those it was trained on",
        row=row,
    )
