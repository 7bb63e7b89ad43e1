"""Events: whatever changes what is in force, as the ledger keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

# No model lives to see more; larger ones would overflow where they are reckoned with.
MOST = 1 << 53
Number = Annotated[int, msgspec.Meta(le=MOST)]
Reason = Literal["start", "rows", "alarm", "reset"]


@dataclass(frozen=True)
class Begun:
    """An epoch began.

    Attributes:
        epoch: Its number, from 1.
        because: What ended the one before.
        rows_before: Evidence rows of the one before, as it ended.
        epoch_rows: Evidence rows after which it will end; nobody has seen one of them yet.
        at_s: When, on the clock of :func:`decide`.
        propose_rows: So many of its first rows propose, and are no evidence.
    """

    epoch: Number
    because: Reason
    rows_before: Number
    epoch_rows: Number
    at_s: float
    propose_rows: Number = 0


@dataclass(frozen=True)
class Proposed:
    """An epoch's first rows have said what its other rows are evidence for.

    Attributes:
        epoch: Which.
        rows: That were looked at; none of them counts for anything else.
        proposal: Name of the ladder: the artifact's own, or that of these candidates.
        guard_limit: Of a ladder that is not the artifact's own; ``None`` is +inf, off.
        candidates: The same, from careful to bold; a threshold of ``None`` is +inf.
        blocks: That each candidate of a ladder would have run for a row, by the ladder's name.
            Says which of two is bolder; proves nothing.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: Number
    rows: Number
    proposal: str
    guard_limit: float | None
    candidates: tuple[tuple[float | None, ...], ...]
    blocks: dict[str, tuple[float, ...]]
    at_s: float


@dataclass(frozen=True)
class Crossed:
    """A candidate's wealth reached the level of its epoch.

    Attributes:
        epoch: In which.
        risk: ε it was tested against.
        candidate: Its place in the order, from 0.
        rows: Evidence rows of the epoch until then.
        disagreements: Of this candidate among them.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: Number
    risk: float
    candidate: Number
    rows: Number
    disagreements: Number
    at_s: float


@dataclass(frozen=True)
class Withdrawn:
    """The alarm took what was in force out of force.

    Attributes:
        epoch: In which.
        rows: Evidence rows that what is in force was watched on.
        disagreements: Among them.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: Number
    rows: Number
    disagreements: Number
    at_s: float


Event = Begun | Crossed | Proposed | Withdrawn
