"""What is in force, from the counts of evidence: a state machine without files or clocks.

Time is cut into epochs. Within one, the wealth of every candidate grows from 1, and a candidate
counts as earned once it and every more careful one have each reached 1 / δ_j. An epoch ends after a
number of evidence rows that was fixed before any of them was seen, or when the alarm says that what
is in force no longer holds; it never slides. Epoch j, whatever began it, may err with probability
δ_j = δ · 6 / (π² j²), so that all together err with at most δ.

An epoch may propose anew: its first rows say what candidates the others are evidence for, and with
which guard; they count for nothing else (proposing.py).

What was earned stays in force while the next epoch earns, up to a greatest age. A candidate's
wealth may fall again once it has reached its level; what proves it are the counts at the crossing,
and these are kept.

Everything that changes what is in force is an event. The same events in the same order make the
same state, on any replica and after any restart.
"""

from __future__ import annotations

import math

import numpy as np

from skipserve.earning.counts import Counts
from skipserve.earning.events import Begun, Crossed, Event, Reason, Withdrawn
from skipserve.earning.ladder import Place, Places
from skipserve.earning.rules import Rules
from skipserve.earning.state import Held, State
from skipserve.earning.wealth import level_of, log_wealth

# Clocks of two machines may differ by so much.
SKEW_S = 60.0


def in_force(rules: Rules, state: State, rows: int, now_s: float) -> Places:
    """The candidate in force for each risk of the rules, ``None`` for full depth.

    It is the bolder of what the present epoch has earned and what the last one left, while that is
    young enough.

    Args:
        rules: As for :func:`decide`.
        state: Where the epochs stand.
        rows: Evidence rows of the present epoch.
        now_s: Seconds on the clock of :func:`decide`.
    """
    held = dict(state.held)
    found: list[Place | None] = []
    for risk in rules.risks:
        earned, old = state.earned(risk), held.get(risk)
        kept = old.place if old is not None and _young(rules, old, rows, now_s) else None
        fresh = None if earned is None else Place(earned, state.proposal)
        found.append(state.bolder(kept, fresh))
    return tuple(found)


def decide(
    rules: Rules, state: State, counts: Counts, now_s: float, earning: bool = True
) -> list[Event]:
    """What the counts of the present epoch change; empty if nothing.

    Args:
        rules: What was fixed beforehand.
        state: Where the epochs stand.
        counts: Evidence of the present epoch, all of it.
        now_s: Seconds on a clock that never goes back.
        earning: Whether anything shall be earned. If not, the rows are evidence for the alarm
            alone, and the epoch does not end.

    Raises:
        ValueError: If the counts are not of as many candidates.
    """
    expected = state.candidates or rules.candidates
    if counts.disagreements.shape != (expected,):
        raise ValueError(f"counts of {counts.disagreements.shape} are not of {expected} candidates")
    if not state.epoch:
        return [_begin(rules, 1, "start", 0, now_s)]
    if state.over:  # whoever withdrew could not write the rest
        return [_begin(rules, state.epoch + 1, "alarm", counts.rows, now_s)]
    if not earning or state.propose_rows:
        return []
    events: list[Event] = []
    wealth = log_wealth(counts.rows, counts.disagreements, np.array(rules.risks)[:, None])
    goal = math.log(1 / level_of(state.epoch, rules.level))
    for place, candidate in np.argwhere(wealth >= goal).tolist():
        risk = rules.risks[place]
        if (risk, candidate) not in state.crossed:
            differ = int(counts.disagreements[candidate])
            events.append(Crossed(state.epoch, risk, candidate, counts.rows, differ, now_s))
    if counts.rows >= state.epoch_rows:
        events.append(_begin(rules, state.epoch + 1, "rows", counts.rows, now_s))
    return events


def withdraw(
    rules: Rules, state: State, rows: int, disagreements: int, of_epoch: int, now_s: float
) -> list[Event]:
    """What follows when the alarm says that what is in force no longer holds.

    Args:
        rules: As for :func:`decide`.
        state: Where the epochs stand.
        rows: Evidence rows that what is in force was watched on.
        disagreements: Among them.
        of_epoch: Evidence rows of the present epoch.
        now_s: Seconds on the clock of :func:`decide`.
    """
    return [
        Withdrawn(state.epoch, rows, disagreements, now_s),
        _begin(rules, state.epoch + 1, "alarm", of_epoch, now_s),
    ]


def reset(rules: Rules, epoch: int, now_s: float) -> list[Event]:
    """What follows when everything that was earned, and the alarm, shall be forgotten.

    Args:
        rules: As for :func:`decide`.
        epoch: The last that any worker was told of.
        now_s: Seconds on the clock of :func:`decide`.
    """
    return [_begin(rules, epoch + 1, "reset", 0, now_s)]


def _begin(rules: Rules, epoch: int, because: Reason, before: int, now_s: float) -> Begun:
    return Begun(epoch, because, before, rules.epoch_rows, now_s, rules.propose_rows)


def _young(rules: Rules, old: Held, rows: int, now_s: float) -> bool:
    if old.rows + rows >= rules.greatest_age_rows:
        return False
    # A clock that went back says nothing of an age, and what is not known is not bold.
    return math.isinf(rules.greatest_age_s) or (
        -SKEW_S <= now_s - old.since_s <= rules.greatest_age_s
    )
