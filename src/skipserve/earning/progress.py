"""How far a model is with earning: what a person wants to know, none of which decides anything."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass

from skipserve.earning.counts import Counts
from skipserve.earning.ladder import Place
from skipserve.earning.rules import Rules
from skipserve.earning.state import State
from skipserve.earning.wealth import level_of, log_wealth

# Rows come at the rate of so long ago until now.
WINDOW_S = 120.0


@dataclass(frozen=True)
class Progress:
    """How far one risk is.

    Attributes:
        risk: ε.
        in_force: The candidate that is in force, in its ladder; ``None`` for full depth.
        coming: The next that will be earned; ``None`` if all of this epoch are.
        rows: Evidence rows of the epoch.
        needed: So many it takes in all for the next, if as many disagree as until now; ``None`` if
            the epoch will be over before.
        seconds: Until then; ``None`` if no rows come in.
        proposing: Whether the rows propose, and are no evidence.
    """

    risk: float
    in_force: Place | None
    coming: int | None
    rows: int
    needed: int | None
    seconds: float | None
    proposing: bool = False

    def told(self) -> str:
        """In words, as ``earning: 1,240 of about 2,000 rows``."""
        if self.proposing:
            return f"proposing: {self.rows:,} of {self.needed:,} rows"
        if self.coming is None:
            return f"earned all there is: {self.rows:,} rows"
        if self.needed is None:
            return f"earning: {self.rows:,} rows, no end in this epoch"
        return f"earning: {self.rows:,} of about {self.needed:,} rows"


def progress(
    rules: Rules,
    state: State,
    counts: Counts,
    risk: float,
    in_force: Place | None,
    rows_per_s: float,
    shown: int = 0,
) -> Progress:
    """How far a risk is.

    Args:
        rules: Of the epochs.
        state: Where they stand.
        counts: Evidence of the present epoch.
        risk: One of the rules'.
        in_force: The candidate in force for it, in its ladder.
        rows_per_s: At which evidence comes in.
        shown: Rows that propose, while some do.
    """
    if state.propose_rows:
        left = max(state.propose_rows - shown, 0) / rows_per_s if rows_per_s > 0 else None
        return Progress(risk, in_force, None, shown, state.propose_rows, left, proposing=True)
    earned = state.earned(risk)
    coming = 0 if earned is None else earned + 1
    if coming >= (state.candidates or rules.candidates):
        return Progress(risk, in_force, None, counts.rows, None, None)
    needed = _needed(state, counts, coming, risk, rules.level)
    left = None if needed is None or rows_per_s <= 0 else (needed - counts.rows) / rows_per_s
    return Progress(risk, in_force, coming, counts.rows, needed, left)


def _needed(state: State, counts: Counts, candidate: int, risk: float, level: float) -> int | None:
    goal = math.log(1 / level_of(max(state.epoch, 1), level))
    differ = int(counts.disagreements[candidate])
    rate = differ / counts.rows if differ else 0.0

    def reached(rows: int) -> bool:
        return float(log_wealth(rows, rate * rows, risk)) >= goal

    low, high = counts.rows, max(state.epoch_rows, counts.rows + 1)
    if not reached(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) else (middle, high)
    return high


class Pace:
    """Rows a second, of a count that begins anew now and then."""

    def __init__(self) -> None:
        self._of: Hashable = None
        self._seen: deque[tuple[float, int]] = deque()

    def take(self, of: Hashable, rows: int, now_s: float) -> float:
        """Take in a count, and return how fast it grows.

        Args:
            of: Of what it is; where that changes, it begins anew.
            rows: Until now.
            now_s: Seconds on a clock that never jumps.
        """
        if of != self._of:
            self._of = of
            self._seen.clear()
        self._seen.append((now_s, rows))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - WINDOW_S:
            self._seen.popleft()
        since_s, before = self._seen[0]
        return (rows - before) / (now_s - since_s) if now_s > since_s else 0.0
