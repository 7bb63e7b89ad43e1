"""How many evidence rows it takes until something is earned."""

from __future__ import annotations

import math

from skipserve.earning.wealth import log_wealth


def rows_needed(risk: float, level: float, disagreements: int = 0) -> int:
    """Fewest rows of which so many may disagree for a candidate to be earned at once.

    Args:
        risk: ε, in (0, 1).
        level: δ of the epoch, in (0, 1).
        disagreements: Among them.
    """
    goal = math.log(1 / level)

    def falls_short(rows: int) -> bool:
        return float(log_wealth(rows, disagreements, risk)) < goal

    low, high = disagreements, disagreements + 1
    while falls_short(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if falls_short(middle) else (low, middle)
    return high
