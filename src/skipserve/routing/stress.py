"""Stress: how a router does on corrupted copies of the user's own rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from skipserve.routing.propose import Observations, Thresholds, greedy, simulate

# What a hard corruption must come to: few wrong answers, or most rows held back.
MOST_DISAGREE, FEWEST_HELD = 0.05, 0.9
ROWS = 1_000


@dataclass(frozen=True)
class StressResult:
    """What a router did to rows corrupted in one way, as shares.

    Attributes:
        kind: Of corruption.
        hard: Whether the first exit is placed by it.
        disagreement: Answers that are not those of full depth.
        run_rate: Blocks run.
        held_back: Rows the guards sent to full depth.
    """

    kind: str
    hard: bool
    disagreement: float
    run_rate: float
    held_back: float

    @property
    def passes(self) -> bool:
        """Whether it is what a hard corruption must come to."""
        return self.disagreement <= MOST_DISAGREE or self.held_back >= FEWEST_HELD


def stress_test(
    kind: str, hard: bool, observed: Observations, thresholds: Thresholds
) -> StressResult:
    """What thresholds do to corrupted rows."""
    disagreement, depth = simulate(thresholds, observed)
    return StressResult(
        kind,
        hard,
        disagreement,
        float(depth / observed.blocks[-1]),
        float((~observed.inside[:, -1]).mean()),
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
        The decision that comes first, and why, in words. If none will do it is the last.
    """
    decisions = ordinary.signal.shape[1]
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
