"""What every candidate would have done with rows that give evidence.

A row that runs all stages passes every exit on its way. So it shows, for every candidate, at which
exit it would have left and whether the answer there is that of full depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import disagreements, first_stop
from skipserve.runtime.prediction import Prediction
from skipserve.tasks import Task


@dataclass(frozen=True)
class CandidateLosses:
    """What the candidates would have done with some rows.

    Attributes:
        disagrees: Whether each would have answered otherwise than full depth [n, candidates], bool.
        blocks: Blocks that each would have run [n, candidates], int64.
    """

    disagrees: NDArray[np.bool_]
    blocks: NDArray[np.int64]


def candidate_losses(
    prediction: Prediction,
    task: Task,
    candidates: NDArray[np.float32],
    ends: NDArray[np.int64],
) -> CandidateLosses:
    """Judge every candidate on the rows of a batch that gave evidence.

    A row that the guard holds back before it leaves is answered at full depth, and agrees. A row
    without a finite answer at full depth agrees with no exit.

    Args:
        prediction: With a trail; its answers are those of full depth where rows were drawn.
        task: Says when two answers agree.
        candidates: Thresholds [candidates, decisions], float32.
        ends: Blocks run at each decision, and at full depth [decisions + 1].
    """
    assert prediction.trail is not None and prediction.signals is not None
    drawn = prediction.trail.drawn
    trail, signals = prediction.trail[drawn], prediction.signals[drawn]
    full = prediction.answers[drawn]
    finite = np.isfinite(full).all(axis=1)
    agrees = np.stack(
        [task.agree(answers, full) & finite for answers in np.moveaxis(trail.answers, 1, 0)], axis=1
    )
    where = first_stop(signals[:, None], candidates[None], trail.inside[:, None])
    return CandidateLosses(disagreements(agrees, where), ends[where])
