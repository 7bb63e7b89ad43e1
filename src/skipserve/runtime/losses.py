"""What every candidate would have done with rows that give evidence.

A row that runs all stages passes every exit on its way. So it shows, for every candidate, at which
exit it would have left and whether the answer there is that of full depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.stopping import stops, within
from skipserve.runtime.shown import Shown


@dataclass(frozen=True)
class Judged:
    """What the candidates would have done with some rows.

    Attributes:
        disagrees: Whether each would have answered otherwise than full depth [n, candidates], bool.
        blocks: Blocks that each would have run [n, candidates], int64.
    """

    disagrees: NDArray[np.bool_]
    blocks: NDArray[np.int64]


def judge(
    shown: Shown,
    candidates: NDArray[np.float32],
    guard_limit: NDArray[np.float32] | float,
    ends: NDArray[np.int64],
) -> Judged:
    """Judge candidates on rows that gave evidence.

    A row that the guard holds back before it leaves is answered at full depth, and agrees.

    Args:
        shown: What their exits read.
        candidates: Thresholds [candidates, decisions], float32; or each row's own
            [n, candidates, decisions].
        guard_limit: Of all; or each row's own [n, 1, 1].
        ends: Blocks run at each decision, and at full depth [decisions + 1].
    """
    may = stops(shown.signals[:, None], candidates)
    may &= within(shown.distances[:, None], guard_limit)
    leaves, first = may.any(axis=2), may.argmax(axis=2)
    right = np.take_along_axis(shown.agrees, first, axis=1)
    return Judged(leaves & ~right, np.where(leaves, ends[first], ends[-1]))
