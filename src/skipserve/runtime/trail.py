"""Trails: what exits read off evidence rows, which run every stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Trail:
    """Readings of the exits for a batch; zeros for rows that give no evidence.

    Attributes:
        drawn: Whether each row gives evidence [n], bool.
        answers: At each decision so far [n, decisions, width], float32.
        inside: Whether each was inside the guard there, and at every cut before [n, decisions].
    """

    drawn: NDArray[np.bool_]
    answers: NDArray[np.float32]
    inside: NDArray[np.bool_]

    def __getitem__(self, index: NDArray[Any] | slice) -> Trail:
        return Trail(self.drawn[index], self.answers[index], self.inside[index])

    def with_decision(self, answers: NDArray[np.float32], inside: NDArray[np.bool_]) -> Trail:
        """Append the readings of one more exit.

        Args:
            answers: [n, width].
            inside: [n].
        """
        width = answers.shape[1]
        before = self.answers.reshape(len(self.drawn), -1, width)
        return Trail(
            self.drawn,
            np.concatenate([before, answers[:, None]], axis=1),
            np.concatenate([self.inside, inside[:, None]], axis=1),
        )

    def put(self, places: NDArray[np.int64], trail: Trail) -> None:
        """Write the trail of some rows over those of these places."""
        self.drawn[places] = trail.drawn
        self.answers[places] = trail.answers
        self.inside[places] = trail.inside

    def blank(self, count: int) -> Trail:
        """A trail of this shape whose rows give no evidence."""
        return Trail(
            np.zeros(count, dtype=bool),
            np.zeros((count, *self.answers.shape[1:]), dtype=np.float32),
            np.zeros((count, *self.inside.shape[1:]), dtype=bool),
        )


def begin(drawn: NDArray[np.bool_] | None) -> Trail | None:
    """The trail of rows before the first exit; ``None`` if none of them gives evidence."""
    if drawn is None or not drawn.any():
        return None
    count = len(drawn)
    return Trail(drawn, np.zeros((count, 0, 0), np.float32), np.zeros((count, 0), dtype=bool))


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
        np.concatenate([one.inside for one in whole]),
    )
