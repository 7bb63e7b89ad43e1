"""A served model whose traffic drifts: earned, watched, withdrawn and earned again.

Many streams at once, looked at every :data:`LOOK` evidence rows. What is looked at less often can
only be earned or withdrawn later, never wrongly more often.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from earning_streams import Alarms, Floats, rows_needed
from numpy.typing import NDArray

from skipserve.earning.wealth import level_of

LOOK = 20
OFTEN = 5
NEVER = 1 << 60


@dataclass(frozen=True)
class Plan:
    """How a model is served.

    Attributes:
        risks: Of the candidates on calm traffic, increasing.
        risk: ε.
        delta: Of all epochs together.
        alpha: Of the alarm.
        share: Of the rows that give evidence while something is in force; all do while nothing is.
        epoch_rows: Evidence rows of an epoch.
    """

    risks: Floats
    risk: float = 0.01
    delta: float = 0.05
    alpha: float = 0.05
    share: float = 0.01
    epoch_rows: int = 10_000


@dataclass
class Outcome:
    """What became of the streams, each [streams].

    Attributes:
        disagrees: Share of the served rows that disagree, in expectation.
        full_depth: Share of the served rows at full depth, but for those that give evidence.
        withdrawals: How often.
        earned_again: Evidence rows from each withdrawal to what was earned next, all streams.
        never_again: Streams that ended withdrawn.
    """

    disagrees: Floats
    full_depth: Floats
    withdrawals: NDArray[np.int64]
    earned_again: list[float] = field(default_factory=list)
    never_again: int = 0


def serve(
    rng: np.random.Generator,
    plan: Plan,
    drift: Callable[[Floats], Floats],
    rows: int,
    streams: int,
) -> Outcome:
    """Serve streams of one length.

    Args:
        rng: Draws them.
        plan: How they are served.
        drift: What the calm risks are multiplied with, by the number of served rows [streams].
        rows: Served, a stream.
        streams: How many.
    """
    count, table = len(plan.risks), _Table(plan)
    served, wrong, full = (np.zeros(streams) for _ in range(3))
    epoch = np.ones(streams, dtype=np.int64)
    seen, age, since = (np.zeros(streams, dtype=np.int64) for _ in range(3))
    differ = np.zeros((streams, count), dtype=np.int64)
    crossed = np.zeros((streams, count), dtype=bool)
    held = np.full(streams, -1)
    out = np.zeros(streams, dtype=bool)  # withdrawn, and nothing earned since
    alarms, outcome = Alarms(plan.risk, streams), Outcome(wrong, full, np.zeros_like(epoch))
    every = np.arange(streams)
    while (going := served < rows).any():
        earned = np.logical_and.accumulate(crossed, axis=1).sum(axis=1) - 1
        force = np.maximum(earned, np.where(age + seen < plan.epoch_rows, held, -1))
        on = force >= 0
        back = going & out & on
        outcome.earned_again += since[back].tolist()
        out &= ~on
        alarms.forget(~on & (alarms.rows > 0))
        now = np.minimum(np.outer(drift(served), plan.risks), 1.0)
        step = np.minimum(np.where(on, LOOK / plan.share, LOOK), rows - served) * going
        wrong += np.where(on, now[every, force], 0.0) * step
        full += np.where(on, 0.0, step)
        served += step
        counts = _nested(rng, now)
        differ += counts
        seen += LOOK
        since += LOOK
        watched = np.where(on & going, LOOK, 0)
        wealth = alarms.update(watched, np.where(watched > 0, counts[every, force], 0))
        withdrawn = (watched > 0) & (wealth >= 1 / plan.alpha)
        crossed |= table.crossed(epoch, seen, differ)
        ended = ~withdrawn & (seen >= plan.epoch_rows)
        age = np.where(ended, age + seen, age)
        earned = np.logical_and.accumulate(crossed, axis=1).sum(axis=1) - 1
        fresh = ended & (earned >= 0)
        held[fresh], age[fresh] = earned[fresh], 0
        outcome.withdrawals += withdrawn
        held[withdrawn], since[withdrawn], out[withdrawn] = -1, 0, True
        alarms.forget(withdrawn)
        anew = ended | withdrawn
        epoch[anew] += 1
        seen[anew], differ[anew], crossed[anew] = 0, 0, False
    outcome.never_again = int(out.sum())
    wrong /= rows
    full /= rows
    return outcome


def _nested(rng: np.random.Generator, risks: Floats) -> NDArray[np.int64]:
    """Disagreements among as many rows as a look [streams, candidates], bolder ones' among them."""
    counts = np.empty(risks.shape, dtype=np.int64)
    counts[:, -1] = rng.binomial(LOOK, risks[:, -1])
    for place in range(risks.shape[1] - 2, -1, -1):
        share = risks[:, place] / risks[:, place + 1]
        counts[:, place] = rng.binomial(counts[:, place + 1], share)
    return counts


class _Table:
    """Fewest rows that prove a candidate, by epoch and disagreements."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        # With more in one epoch nothing is proved, however the rows fall.
        self._most = int(plan.epoch_rows * plan.risk)
        self._needed = np.empty((0, self._most + 2), dtype=np.int64)

    def crossed(
        self, epoch: NDArray[np.int64], seen: NDArray[np.int64], differ: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Whether candidates cross [streams, candidates] with these counts."""
        plan = self._plan
        for number in range(len(self._needed) + 1, int(epoch.max()) + 1):
            fewest = rows_needed(plan.risk, level_of(number, plan.delta), self._most)
            self._needed = np.vstack([self._needed, [*fewest, NEVER]])
        needed = self._needed[epoch[:, None] - 1, np.minimum(differ, self._most + 1)]
        reached: NDArray[np.bool_] = seen[:, None] >= needed
        return reached


def rows_to_alarm(
    rng: np.random.Generator,
    plan: Plan,
    calm_rows: int,
    times: float,
    most: int,
    streams: int,
    look: int = OFTEN,
) -> Floats:
    """Evidence rows of a rate ``times`` ε until the alarm, after calm ones at 0.6 ε [streams].

    Looked at every ``look`` rows: five, where a launcher looks once a second, 500 rows are served
    in it, and a share of 1 % gives evidence. Streams with an alarm on calm rows are left out;
    infinity is none within ``most`` rows.
    """
    alarms, found = Alarms(plan.risk, streams), np.full(streams, np.inf)
    false = np.zeros(streams, dtype=bool)
    for seen in range(0, calm_rows + most, look):
        rate = 0.6 * plan.risk if seen < calm_rows else times * plan.risk
        rows = np.full(streams, look)
        raised = alarms.update(rows, rng.binomial(look, rate, streams)) >= 1 / plan.alpha
        if seen < calm_rows:
            false |= raised
        else:
            fresh = raised & np.isinf(found)
            found[fresh] = seen + look - calm_rows
        if np.isfinite(found[~false]).all():
            break
    return found[~false]
