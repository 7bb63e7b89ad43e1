"""Trails: what exits read off evidence rows, which run every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trail:
    """Readings of the exits for a batch; zeros for rows that give no evidence.

    Attributes:
        drawn: Whether each row gives evidence [n], bool.
        answers: At each decision so far [n, decisions, width], float32.
        distances: How far each was from what the guard knows, there and at every cut before, at the
            most [n, decisions], float32; NaN from where it was no number on.
        farthest: The same at the last cut, where rows may leave or not [n], float32.
    """

    drawn: NDArray[np.bool_]
    answers: NDArray[np.float32]
    distances: NDArray[np.float32]
    farthest: NDArray[np.float32]

    def __getitem__(self, index: NDArray[Any] | slice) -> Trail:
        return Trail(
            self.drawn[index], self.answers[index], self.distances[index], self.farthest[index]
        )

    def past(self, distances: NDArray[np.float32]) -> Trail:
        """Behind one more cut, where the rows were so far from what the guard knows [n]."""
        return replace(self, farthest=np.maximum(self.farthest, distances))

    def with_decision(self, answers: NDArray[np.float32]) -> Trail:
        """With what one more exit read [n, width], at the last cut."""
        width = answers.shape[1]
        before = self.answers.reshape(len(self.drawn), -1, width)
        return replace(
            self,
            answers=np.concatenate([before, answers[:, None]], axis=1),
            distances=np.concatenate([self.distances, self.farthest[:, None]], axis=1),
        )

    def put(self, places: NDArray[np.int64], trail: Trail) -> None:
        """Write the trail of some rows over those of these places."""
        self.drawn[places] = trail.drawn
        self.answers[places] = trail.answers
        self.distances[places] = trail.distances
        self.farthest[places] = trail.farthest

    def blank(self, count: int) -> Trail:
        """A trail of this shape whose rows give no evidence."""
        return Trail(
            np.zeros(count, dtype=bool),
            np.zeros((count, *self.answers.shape[1:]), dtype=np.float32),
            np.zeros((count, *self.distances.shape[1:]), dtype=np.float32),
            np.zeros(count, dtype=np.float32),
        )


def begin(drawn: NDArray[np.bool_] | None) -> Trail | None:
    """The trail of rows before the first exit; ``None`` if none of them gives evidence."""
    if drawn is None or not drawn.any():
        return None
    count = len(drawn)
    nothing = np.zeros((count, 0), dtype=np.float32)
    return Trail(drawn, nothing[..., None], nothing, np.zeros(count, dtype=np.float32))


def joined(trails: Sequence[Trail | None], counts: Sequence[int]) -> Trail | None:
    """The trails of several batches behind the same exits, as one.

    Args:
        trails: ``None`` where no row gives evidence.
        counts: Rows of each batch.
    """
    some = next((trail for trail in trails if trail is not None), None)
    if some is None:
        return None
    whole = [
        some.blank(count) if trail is None else trail
        for trail, count in zip(trails, counts, strict=True)
    ]
    return Trail(
        np.concatenate([one.drawn for one in whole]),
        np.concatenate([one.answers for one in whole]),
        np.concatenate([one.distances for one in whole]),
        np.concatenate([one.farthest for one in whole]),
    )
