"""Choosing exits: an exit must let enough rows leave to be worth its time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.intervals import short_time
from skipserve.routing.propose import Observations, greedy, where_rows_leave

# Above this number, every other exit is dropped before exits are compared.
MOST = 24
# Rate of disagreement at which sets of exits are compared.
RATE = 0.01
# The engine's own time between two stages, for one row (benchmarks/depth.py).
STEP_S = 2e-5


@dataclass(frozen=True)
class Costs:
    """Measured times of one row, in seconds.

    Attributes:
        stages: Of each stage between neighbouring cuts, exits not counted [cuts + 1].
        exits: Of what is read at each cut [cuts].
    """

    stages: tuple[float, ...]
    exits: tuple[float, ...]

    def rounded(self) -> Costs:
        """Round to quarters of a power of two, so that a noisy clock seldom changes the graph."""

        def near(seconds: float) -> float:
            return math.pow(2, round(4 * math.log2(max(seconds, 1e-7))) / 4)

        return Costs(tuple(map(near, self.stages)), tuple(map(near, self.exits)))


def choose_exits(
    observed: Observations, costs: Costs, allowed: Sequence[int] | None = None
) -> tuple[list[int], str]:
    """Drop exits, the worst first, while a lone row becomes no slower.

    The time of a row is that of the stages it runs, and of the exits it passes; which those are
    follows from thresholds searched anew for each set of exits. The cut at depth 0 is always
    there, for its guard.

    Args:
        observed: By cut, on rows that are not used to certify.
        costs: By cut.
        allowed: Cuts where rows may leave, at least one; all by default.

    Returns:
        The cuts that remain, and how they were chosen, in words.
    """
    costs = costs.rounded()
    kept = list(range(observed.signal.shape[1]) if allowed is None else allowed)
    among = len(kept)
    while len(kept) > MOST:
        kept = kept[::2]

    best = whole = row_seconds(kept, observed, costs)
    while len(kept) > 1:
        fewer = [[cut for cut in kept if cut != out] for out in kept]
        times = [row_seconds(cuts, observed, costs) for cuts in fewer]
        if min(times) > best * (1 + 1e-9):  # an exit without effect is dropped too
            break
        best, kept = min(times), fewer[int(np.argmin(times))]
    return kept, (
        f"{len(kept)} of {among} cuts: a lone row takes about {short_time(best)} "
        f"at {RATE:.0%} disagreement, with an exit at all of them {short_time(whole)}, at full "
        f"depth {short_time(sum(costs.stages))}"
    )


def row_seconds(
    cuts: Sequence[int], observed: Observations, costs: Costs, guarded: Sequence[int] = (0,)
) -> float:
    """Mean time of a lone row with exits at some of the cuts, at 1 % disagreement.

    Args:
        cuts: Where rows may leave.
        observed: By cut.
        costs: By cut.
        guarded: Cuts that rows pass for their guards, beside those where they may leave.
    """
    part = observed.only(cuts)
    where = where_rows_leave(greedy(part, RATE), part)
    return float(_times(cuts, guarded, costs)[where].mean())


def _times(cuts: Sequence[int], guarded: Sequence[int], costs: Costs) -> NDArray[np.float64]:
    """Time of a row by where it leaves, the last at full depth [cuts + 1]."""
    passed = sorted({*guarded, *cuts})
    spent, times, at = 0.0, [], 0
    for cut in passed:
        spent += sum(costs.stages[at : cut + 1]) + costs.exits[cut] + STEP_S
        at = cut + 1
        if cut in cuts:
            times.append(spent)
    return np.array([*times, spent + sum(costs.stages[at:])])
