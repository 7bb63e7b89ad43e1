"""Judging: what becomes of rows that each stop at a depth of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.certify import p_value


@dataclass(frozen=True)
class Readings:
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


def judge(readings: Readings, labels: NDArray[np.int64] | None, where: NDArray[np.int64]) -> Judged:
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


def at_random(readings: Readings, labels: NDArray[np.int64] | None, chance: float) -> Judged:
    """The expectation for rows that leave at each depth before the last with the same chance."""
    depths = len(readings.blocks)
    share = chance * (1 - chance) ** np.arange(depths)
    share[-1] = (1 - chance) ** (depths - 1)
    right = np.nan
    if labels is not None:
        right = float(share @ (readings.labels == labels[:, None]).mean(axis=0))
    disagreement = share @ (1 - readings.agrees.mean(axis=0))
    return Judged(float(share @ readings.blocks), float(disagreement), right)


def oracle(readings: Readings, labels: NDArray[np.int64] | None, rate: float) -> Judged:
    """The fewest blocks that any exit needs if at most a share ``rate`` may disagree.

    Each row leaves where it first agrees; those that agree latest leave at once instead, as long
    as ``rate`` allows.
    """
    where = readings.agrees.argmax(axis=1)
    latest = np.argsort(-where, kind="stable")[: int(rate * len(where))]
    where[latest] = 0
    return judge(readings, labels, where)


def shortest_fixed(readings: Readings, risk: float, confidence: float) -> int:
    """Fewest blocks that can be certified if every row runs as many.

    Depths are tested like a router's candidates: in a fixed order, from careful to bold, by the
    same test. Full depth always holds.

    Args:
        readings: Answers by depth on rows that nothing else has touched.
        risk: ε.
        confidence: 1 − δ.
    """
    shortest = int(readings.blocks[-1])
    for blocks, agrees in zip(readings.blocks[-2::-1], readings.agrees.T[-2::-1], strict=True):
        if p_value(int((~agrees).sum()), len(agrees), risk) > 1 - confidence:
            break
        shortest = int(blocks)
    return shortest
