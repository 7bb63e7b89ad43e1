"""Judging early stopping: mean depth, disagreement and accuracy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.tasks import Unit


@dataclass(frozen=True)
class ByDepth:
    """Answers of N rows at D depths, the last of them full depth.

    Attributes:
        blocks: Blocks run at each depth [D], int64, increasing.
        agrees: Whether an answer agrees with that of full depth [N, D]; of queries, whether a row
            may have it where the others have theirs.
        right: Whether it is right [N, D]; ``None`` where that is not known.
        by_query: Whether queries agree whose rows all have it [queries, D]; ``None`` where rows are
            counted.
    """

    blocks: NDArray[np.int64]
    agrees: NDArray[np.bool_]
    right: NDArray[np.bool_] | None = None
    by_query: NDArray[np.bool_] | None = None

    @property
    def unit(self) -> Unit:
        """What is counted."""
        return "rows" if self.by_query is None else "queries"

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Whether what is counted agrees with full depth [units, D]."""
        return self.agrees if self.by_query is None else self.by_query

    @property
    def oracle(self) -> NDArray[np.int64]:
        """The fewest blocks after which each row's answer is that of full depth [N], int64."""
        fewest: NDArray[np.int64] = self.blocks[self.agrees.argmax(axis=1)]
        return fewest


@dataclass(frozen=True)
class StoppingResult:
    """The result of stopping rows early.

    Attributes:
        blocks: Mean blocks run.
        disagreement: Rate at which answers differ from those of full depth.
        accuracy: Rate of right answers; NaN without labels.
    """

    blocks: float
    disagreement: float
    accuracy: float


def judge(readings: ByDepth, where: NDArray[np.int64]) -> StoppingResult:
    """The result for rows that each stop at a given depth.

    Args:
        readings: Answers by depth.
        where: Where each row stops, as a column of the readings [N].
    """

    def there(values: NDArray[np.bool_]) -> float:
        return float(np.take_along_axis(values, where[:, None], axis=1).mean())

    return StoppingResult(
        float(readings.blocks[where].mean()),
        there(~readings.agrees),
        float("nan") if readings.right is None else there(readings.right),
    )


def at_random(readings: ByDepth, chance: float) -> StoppingResult:
    """The expected result for rows that leave at each depth with the same probability."""
    depths = len(readings.blocks)
    share = chance * (1 - chance) ** np.arange(depths)
    share[-1] = (1 - chance) ** (depths - 1)
    right = np.nan
    if readings.right is not None:
        right = float(share @ readings.right.mean(axis=0))
    disagreement = share @ (1 - readings.agrees.mean(axis=0))
    return StoppingResult(float(share @ readings.blocks), float(disagreement), right)


def oracle(readings: ByDepth, rate: float) -> StoppingResult:
    """The oracle: the fewest blocks if at most a share ``rate`` of the rows may disagree.

    Each row leaves where it first agrees; those that agree latest leave at once instead, as long
    as ``rate`` allows.
    """
    where = readings.agrees.argmax(axis=1)
    latest = np.argsort(-where, kind="stable")[: int(rate * len(where))]
    where[latest] = 0
    return judge(readings, where)
