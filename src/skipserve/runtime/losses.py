"""Losses of every candidate on evidence rows.

A row that runs all stages passes every exit on its way. So it shows, for every candidate, at which
exit it would have left and whether the answer there is that of full depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import disagreements, first_stop, within
from skipserve.runtime.shown import Shown


@dataclass(frozen=True)
class CandidateLosses:
    """What each candidate would have done with some rows.

    Attributes:
        disagrees: Whether each would have answered otherwise than full depth [n, candidates], bool.
        blocks: Blocks that each would have run [n, candidates], int64.
    """

    disagrees: NDArray[np.bool_]
    blocks: NDArray[np.int64]


def candidate_losses(
    shown: Shown,
    candidates: NDArray[np.float32],
    guard_limit: NDArray[np.float32] | float,
    ends: NDArray[np.int64],
) -> CandidateLosses:
    """Compute the losses of candidates on evidence rows.

    A row that the guard holds back before it leaves is answered at full depth, and agrees.

    Args:
        shown: What their exits read.
        candidates: Thresholds [candidates, decisions], float32; or each row's own
            [n, candidates, decisions].
        guard_limit: Of all; or each row's own [n, 1, 1].
        ends: Blocks run at each decision, and at full depth [decisions + 1].
    """
    inside = within(shown.distances[:, None], guard_limit)
    where = first_stop(shown.signals[:, None], candidates, inside)
    return CandidateLosses(disagreements(shown.agrees, where), ends[where])
