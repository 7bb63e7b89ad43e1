"""A ladder: candidates in their order, and the guard that all of them stand behind."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import WrittenThresholds, from_json, thresholds_of

# The artifact's own; what was proposed on traffic is named by its hash.
OWN = ""


class Place(NamedTuple):
    """A candidate, by its place in a ladder.

    Attributes:
        candidate: From 0, the most careful.
        proposal: Name of the ladder.
    """

    candidate: int
    proposal: str = OWN


# For each risk of a model, in its order; ``None`` for full depth.
Places = tuple[Place | None, ...]


@dataclass(frozen=True)
class Ladder:
    """Candidates that evidence is judged by.

    Attributes:
        thresholds: From careful to bold [candidates, decisions], float32.
        guard_limit: Rows farther than this from what the guard knows run everything; +inf is off.
        proposal: Its name.
    """

    thresholds: NDArray[np.float32]
    guard_limit: float
    proposal: str = OWN

    def __len__(self) -> int:
        return len(self.thresholds)

    def may_follow(self, own: Ladder) -> bool:
        """Whether traffic may have proposed it for a model of this own ladder.

        It is for as many decisions, and traffic only ever raises the limit of a guard.
        """
        off = own.guard_limit == np.inf
        higher = own.guard_limit <= self.guard_limit and (self.guard_limit < np.inf or off)
        return higher and self.thresholds.shape[1:] == own.thresholds.shape[1:]

    @staticmethod
    def of(
        candidates: Sequence[WrittenThresholds], guard_limit: float | None, proposal: str = OWN
    ) -> Ladder:
        """A ladder from what a file says of it.

        Args:
            candidates: Thresholds of each; ``None`` is +inf.
            guard_limit: ``None`` is +inf.
            proposal: Its name.
        """
        table = np.array([thresholds_of(one) for one in candidates], dtype=np.float32)
        return Ladder(table, from_json(guard_limit), proposal)


def name_of(candidates: Sequence[WrittenThresholds], guard_limit: float | None) -> str:
    """What a ladder is called that was proposed on traffic: a hash of what it is, in hex."""
    content = json.dumps([guard_limit, [list(one) for one in candidates]])
    return hashlib.sha256(content.encode()).hexdigest()[:32]
