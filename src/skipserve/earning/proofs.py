"""Whether what is said to be earned follows from its counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from skipserve.earning.events import Crossed
from skipserve.earning.rules import Rules
from skipserve.earning.wealth import level_of, log_wealth


def proved(rules: Rules, event: Crossed) -> bool:
    """Whether what is said of a crossing follows from its counts, under rules."""
    known = event.risk in rules.risks and 0 <= event.candidate < rules.candidates
    if not known or event.epoch < 1 or not 0 <= event.disagreements <= event.rows:
        return False
    wealth = float(log_wealth(event.rows, event.disagreements, event.risk))
    goal = math.log(1 / level_of(event.epoch, rules.level))
    # Sums of logarithms; another machine's may end otherwise.
    return wealth >= goal or math.isclose(wealth, goal, rel_tol=1e-9)


def unordered(candidates: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """Two candidates of which the later is nowhere bolder than the earlier; ``None`` if none are.

    Args:
        candidates: Thresholds of each, from careful to bold; +inf never lets a row go.
    """
    for (place, one), (later, other) in itertools.combinations(enumerate(candidates), 2):
        if all(after >= before for before, after in zip(one, other, strict=True)):
            return place, later
    return None
