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
        labels: Answers [N, D], int64.
    """

    blocks: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """Whether an answer is that of full depth [N, D]."""
        same: NDArray[np.bool_] = self.labels == self.labels[:, -1:]
        return same

    @property
    def oracle(self) -> NDArray[np.int64]:
        """The fewest blocks after which each row's answer is that of full depth [N], int64."""
        fewest: NDArray[np.int64] = self.blocks[self.agrees.argmax(axis=1)]
        return fewest


@dataclass(frozen=True)
class Judged:
    """What stopping early did to some rows.

    Attributes:
        blocks: Mean blocks run.
        disagreement: Rate at which answers differ from those of full depth.
        accuracy: Rate of right answers; NaN without labels.
    """

    blocks: float
    disagreement: float
    accuracy: float


def judge(readings: ByDepth, labels: NDArray[np.int64] | None, where: NDArray[np.int64]) -> Judged:
    """Rows that each stop at a depth of their own.

    Args:
        readings: Answers by depth.
        labels: Classes [N], or ``None``.
        where: Where each row stops, as a column of the readings [N].
    """
    answers = np.take_along_axis(readings.labels, where[:, None], axis=1)[:, 0]
    return Judged(
        float(readings.blocks[where].mean()),
        float((answers != readings.labels[:, -1]).mean()),
        float("nan") if labels is None else float((answers == labels).mean()),
    )


def at_random(readings: ByDepth, labels: NDArray[np.int64] | None, chance: float) -> Judged:
    """The expectation for rows that leave at each depth before the last with the same chance."""
    depths = len(readings.blocks)
    share = chance * (1 - chance) ** np.arange(depths)
    share[-1] = (1 - chance) ** (depths - 1)
    right = np.nan
    if labels is not None:
        right = float(share @ (readings.labels == labels[:, None]).mean(axis=0))
    disagreement = share @ (1 - readings.agrees.mean(axis=0))
    return Judged(float(share @ readings.blocks), float(disagreement), right)


def oracle(readings: ByDepth, labels: NDArray[np.int64] | None, rate: float) -> Judged:
    """The fewest blocks that any exit needs if at most a share ``rate`` may disagree.

    Each row leaves where it first agrees; those that agree latest leave at once instead, as long
    as ``rate`` allows.
    """
    where = readings.agrees.argmax(axis=1)
    latest = np.argsort(-where, kind="stable")[: int(rate * len(where))]
    where[latest] = 0
    return judge(readings, labels, where)
