"""What is fixed before the first row of evidence is seen."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from skipserve.earning.ladder import Ladder


@dataclass(frozen=True)
class Rules:
    """What is fixed before the first row.

    Attributes:
        risks: ε, each certified at ``level`` by itself.
        candidates: How many the artifact has, from careful to bold.
        level: δ of all epochs together.
        epoch_rows: Evidence rows after which an epoch ends that begins from now on.
        greatest_age_rows: Evidence rows that an earned candidate stays in force after its epoch.
        greatest_age_s: The same in seconds; no limit by default.
        propose_rows: Rows at the beginning of an epoch that propose; 0: none.
        own: The artifact's own ladder, which proposals are held against; ``None``: they are not.
    """

    risks: tuple[float, ...]
    candidates: int
    level: float
    epoch_rows: int
    greatest_age_rows: int
    greatest_age_s: float = math.inf
    propose_rows: int = 0
    own: Ladder | None = field(default=None, compare=False)
