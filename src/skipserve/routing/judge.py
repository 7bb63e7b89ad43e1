"""Judging: what becomes of rows that each stop at a depth of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ByDepth:
    """Answers of N rows at D depths, the last of them full depth.

    Attributes:
        blocks: Blocks run at each depth [D], int64, increasing.
        agrees: Whether an answer agrees with that of full depth [N, D].
        right: Whether it is right [N, D]; ``None`` where that is not known.
    """

    blocks: NDArray[np.int64]
    agrees: NDArray[np.bool_]
    right: NDArray[np.bool_] | None = None

    @property
    def oracle(self) -> NDArray[np.int64]:
        """The fewest blocks after which each row's answer is that of full depth [N], int64."""
        fewest: NDArray[np.int64] = self.blocks[self.agrees.argmax(axis=1)]
        return fewest


def of_classes(
    blocks: NDArray[np.int64],
    classes: NDArray[np.int64],
    truth: NDArray[np.int64] | None = None,
) -> ByDepth:
    """Of answers that are classes.

    Args:
        blocks: Blocks run at each depth [D].
        classes: Answers [N, D].
        truth: True classes [N], if they are known.
    """
    right = None if truth is None else classes == truth[:, None]
    return ByDepth(blocks, classes == classes[:, -1:], right)


@dataclass(frozen=True)
class StoppingResult:
    """What stopping early did to some rows.

    Attributes:
        blocks: Mean blocks run.
        disagreement: Rate at which answers differ from those of full depth.
        accuracy: Rate of right answers; NaN without labels.
    """

    blocks: float
    disagreement: float
    accuracy: float


def judge(readings: ByDepth, where: NDArray[np.int64]) -> StoppingResult:
    """Rows that each stop at a depth of their own.

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
    """The expectation for rows that leave at each depth before the last with the same chance."""
    depths = len(readings.blocks)
    share = chance * (1 - chance) ** np.arange(depths)
    share[-1] = (1 - chance) ** (depths - 1)
    right = np.nan
    if readings.right is not None:
        right = float(share @ readings.right.mean(axis=0))
    disagreement = share @ (1 - readings.agrees.mean(axis=0))
    return StoppingResult(float(share @ readings.blocks), float(disagreement), right)


def oracle(readings: ByDepth, rate: float) -> StoppingResult:
    """The fewest blocks that any exit needs if at most a share ``rate`` may disagree.

    Each row leaves where it first agrees; those that agree latest leave at once instead, as long
    as ``rate`` allows.
    """
    where = readings.agrees.argmax(axis=1)
    latest = np.argsort(-where, kind="stable")[: int(rate * len(where))]
    where[latest] = 0
    return judge(readings, where)
