"""Proposing on traffic: the first rows of an epoch fix what its other rows are evidence for.

They refit the limit of the guard and the thresholds, and count for nothing else. So whatever is
done with them here, the rows that follow have not been seen, and prove what they prove.

The limit is only ever raised: what calibration has seen stays familiar, and what the traffic shows
becomes so. A ladder that does about as well as the new one stays, for thresholds of a few hundred
rows are rough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import to_json
from skipserve.earning.events import Proposed
from skipserve.earning.ladder import OWN, Ladder, name_of
from skipserve.routing.propose import Observations, propose, simulate
from skipserve.routing.stopping import within
from skipserve.runtime.shown import Shown

# A new ladder must run this much less at some risk.
WORTH = 0.8
# A candidate that disagrees on so much of ε among the rows that propose is likely to be earned.
LIKELY = 0.6
# Disagreements that the rows may have been spared by luck, at each decision.
DOUBT = 2.0


@dataclass(frozen=True)
class About:
    """What proposing needs to know of a model.

    Attributes:
        blocks: Run at each decision, and at full depth [decisions + 1], int64.
        risks: ε that shall be certified.
        inside: Share of ordinary rows that the guard lets pass.
    """

    blocks: NDArray[np.int64]
    risks: Sequence[float]
    inside: float


def propose_anew(
    shown: Shown,
    about: About,
    ladders: Mapping[str, Ladder],
    used: str,
    epoch: int,
    at_s: float,
) -> Proposed:
    """What the rows that were shown propose.

    Args:
        shown: The first rows of the epoch; none, and the ladder before stays.
        about: The model.
        ladders: The artifact's own, those that something is in force of, and that of the epoch
            before; by name.
        used: Name of the one of the epoch before.
        epoch: The present one.
        at_s: When, on the clock of the epochs.
    """
    before = ladders[used]
    outcomes: dict[str, list[tuple[float, float]]] = {}
    if len(shown):
        outcomes = {name: _outcomes(one, shown, about) for name, one in ladders.items()}
        fresh = _fitted(shown, about, ladders[OWN].guard_limit)
    if len(shown) and len(fresh) and fresh.proposal not in ladders:
        outcome = _outcomes(fresh, shown, about)
        pairs = zip(*(_least(one, about) for one in (outcome, outcomes[used])), strict=True)
        if any(new <= WORTH * old for new, old in pairs):
            before = fresh
            outcomes[fresh.proposal] = outcome
    own = before.proposal == OWN
    return Proposed(
        epoch=epoch,
        rows=len(shown),
        proposal=before.proposal,
        guard_limit=None if own else to_json(before.guard_limit),
        candidates=() if own else _told(before),
        blocks={name: tuple(ran for _, ran in one) for name, one in outcomes.items()},
        at_s=at_s,
    )


def _told(ladder: Ladder) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(map(to_json, one)) for one in ladder.thresholds.tolist())


def _fitted(shown: Shown, about: About, least: float) -> Ladder:
    """A ladder for these rows, named by what it is."""
    farthest = shown.distances[:, -1].astype(np.float64)
    farthest = farthest[np.isfinite(farthest)]
    limit = least
    if len(farthest) and least < np.inf:
        limit = max(least, float(np.quantile(farthest, about.inside, method="higher")))
    found = propose(_seen(shown, about, limit), about.risks, DOUBT)
    table = np.array(found, dtype=np.float32).reshape(len(found), shown.signals.shape[1])
    ladder = Ladder(table, limit)
    return replace(ladder, proposal=name_of(_told(ladder), to_json(limit)))


def _seen(shown: Shown, about: About, limit: float) -> Observations:
    return Observations(about.blocks, shown.signals, shown.agrees, within(shown.distances, limit))


def _outcomes(ladder: Ladder, shown: Shown, about: About) -> list[tuple[float, float]]:
    """Rate of disagreement and mean blocks of each candidate."""
    seen = _seen(shown, about, ladder.guard_limit)
    return [simulate(thresholds, seen) for thresholds in ladder.thresholds]


def _least(outcomes: Sequence[tuple[float, float]], about: About) -> list[float]:
    """Blocks of the boldest candidate of a ladder that each risk is likely to let be earned."""
    found = []
    for risk in about.risks:
        least = float(about.blocks[-1])
        for rate, ran in outcomes:
            if rate > LIKELY * risk:
                break
            least = min(least, ran)
        found.append(least)
    return found
