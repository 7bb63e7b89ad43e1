"""What the exits read off rows that ran everything, whatever is made of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.prediction import Prediction
from skipserve.tasks import Task


@dataclass(frozen=True)
class Shown:
    """What the exits read off rows that ran everything.

    Attributes:
        signals: At each decision [n, decisions], float32.
        distances: The farthest from what the guard knows up to there [n, decisions], float32.
        agrees: Whether the answer there is that of full depth [n, decisions], bool.
    """

    signals: NDArray[np.float32]
    distances: NDArray[np.float32]
    agrees: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.signals)

    def __getitem__(self, index: slice | NDArray[np.bool_]) -> Shown:
        return Shown(self.signals[index], self.distances[index], self.agrees[index])

    @staticmethod
    def none(decisions: int) -> Shown:
        """No rows."""
        floats = np.empty((0, decisions), np.float32)
        return Shown(floats, floats, np.empty((0, decisions), bool))

    @staticmethod
    def together(parts: list[Shown], decisions: int) -> Shown:
        """All rows of several."""
        parts = [Shown.none(decisions), *parts]
        return Shown(
            np.concatenate([one.signals for one in parts]),
            np.concatenate([one.distances for one in parts]),
            np.concatenate([one.agrees for one in parts]),
        )


def shown_of(prediction: Prediction, task: Task) -> Shown:
    """What the exits read off the rows of a batch that gave evidence.

    A row without a finite answer at full depth agrees with no exit.

    Args:
        prediction: With a trail; its answers are those of full depth where rows were drawn.
        task: Says when two answers agree.
    """
    assert prediction.trail is not None and prediction.signals is not None
    drawn = prediction.trail.drawn
    trail, full = prediction.trail[drawn], prediction.answers[drawn]
    finite = np.isfinite(full).all(axis=1)
    agrees = np.stack(
        [task.agree(answers, full) & finite for answers in np.moveaxis(trail.answers, 1, 0)], axis=1
    )
    return Shown(prediction.signals[drawn], trail.distances, agrees)
