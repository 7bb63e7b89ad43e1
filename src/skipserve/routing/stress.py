"""Stress: the router on corrupted copies of the user's rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skipserve.routing.propose import Observations, Thresholds, greedy, where_rows_leave
from skipserve.routing.stopping import disagreements

# A hard corruption must have few wrong answers, or most rows held back.
MOST_DISAGREE, FEWEST_HELD = 0.05, 0.9
ROWS = 1_000


@dataclass(frozen=True)
class StressResult:
    """The result of a router on rows with one kind of corruption, as shares.

    Attributes:
        kind: Of corruption.
        hard: Whether the first exit is placed by it.
        disagreement: Answers that are not those of full depth.
        run_rate: Blocks run.
        held_back: Rows that the guards sent to full depth. One that left before it came to the
            guard that would have seen it is none of them.
    """

    kind: str
    hard: bool
    disagreement: float
    run_rate: float
    held_back: float

    @property
    def passes(self) -> bool:
        """Whether the result meets the requirement for hard corruptions."""
        return self.disagreement <= MOST_DISAGREE or self.held_back >= FEWEST_HELD


def stress_test(
    kind: str, hard: bool, observed: Observations, thresholds: Thresholds
) -> StressResult:
    """The result of thresholds on corrupted rows."""
    where = where_rows_leave(thresholds, observed)
    held_back = (where == len(thresholds)) & ~observed.inside[:, -1]
    return StressResult(
        kind,
        hard,
        float(disagreements(observed.agrees, where).mean()),
        float(observed.blocks[where].mean() / observed.blocks[-1]),
        float(held_back.mean()),
    )


def first_exit(
    ordinary: Observations, hard: Mapping[str, Observations], rate: float
) -> tuple[int, str]:
    """The least depth at which every hard corruption passes, if exits begin there.

    Args:
        ordinary: What thresholds are searched on.
        hard: By kind of corruption.
        rate: Of disagreement among leavers, for the search.

    Returns:
        The decision that comes first, and why, in words. It is the last if none will do, or if
        there is nothing to test on.
    """
    decisions = ordinary.signal.shape[1]
    if not hard:
        return decisions - 1, "no corruption changes these rows, so no depth was tested"
    why = ""
    for first in range(decisions):
        thresholds = greedy(ordinary, rate)
        if first:
            part = ordinary.only(range(first, decisions))
            thresholds = np.concatenate([np.full(first, np.inf, np.float32), greedy(part, rate)])
        results = [stress_test(kind, True, observed, thresholds) for kind, observed in hard.items()]
        failed = [one for one in results if not one.passes]
        if not failed:
            return first, why or "every hard corruption is held back or answered as at full depth"
        worst = max(failed, key=lambda one: one.disagreement)
        why = (
            f"an exit after {ordinary.blocks[first]} blocks would disagree on "
            f"{worst.disagreement:.0%} of rows with {worst.kind}"
        )
    return decisions - 1, why + "; no depth is safe from it"
