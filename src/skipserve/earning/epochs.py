"""What is in force, from the counts of evidence: a state machine without files or clocks.

Time is cut into epochs. Within one, the wealth of every candidate grows from 1, and a candidate
counts as earned once it and every more careful one have each reached 1 / δ_j. An epoch ends after a
number of evidence rows that was fixed before any of them was seen, or when the alarm says that what
is in force no longer holds; it never slides. Epoch j, whatever began it, may err with probability
δ_j = δ · 6 / (π² j²), so that all together err with at most δ.

What was earned stays in force while the next epoch earns, up to a greatest age. A candidate's
wealth may fall again once it has reached its level; what proves it are the counts at the crossing,
and these are kept.

Everything that changes what is in force is an event. The same events in the same order make the
same state, on any replica and after any restart.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skipserve.earning.wealth import level_of, log_wealth

Reason = Literal["start", "rows", "alarm", "reset"]
# Clocks of two machines may differ by so much.
SKEW_S = 60.0


@dataclass(frozen=True)
class Rules:
    """What is fixed before the first row.

    Attributes:
        risks: ε, each certified at ``level`` by itself.
        candidates: How many there are, from careful to bold.
        level: δ of all epochs together.
        epoch_rows: Evidence rows after which an epoch ends that begins from now on.
        greatest_age_rows: Evidence rows that an earned candidate stays in force after its epoch.
        greatest_age_s: The same in seconds; no limit by default.
    """

    risks: tuple[float, ...]
    candidates: int
    level: float
    epoch_rows: int
    greatest_age_rows: int
    greatest_age_s: float = math.inf


@dataclass(frozen=True)
class Counts:
    """Evidence of one epoch.

    Attributes:
        rows: Evidence rows.
        disagreements: Of each candidate [candidates], int64.
        blocks: That each candidate would have run for these rows [candidates], int64; proves
            nothing, says what a candidate would save.
        dropped: Rows that were drawn and could not be run.
    """

    rows: int
    disagreements: NDArray[np.int64]
    blocks: NDArray[np.int64]
    dropped: int = 0

    @staticmethod
    def none(candidates: int) -> Counts:
        """Nothing seen."""
        zeros = np.zeros(candidates, dtype=np.int64)
        return Counts(0, zeros, zeros)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows,
            self.disagreements + other.disagreements,
            self.blocks + other.blocks,
            self.dropped + other.dropped,
        )


@dataclass(frozen=True)
class Begun:
    """An epoch began.

    Attributes:
        epoch: Its number, from 1.
        because: What ended the one before.
        rows_before: Evidence rows of the one before, as it ended.
        epoch_rows: Evidence rows after which it will end; nobody has seen one of them yet.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: int
    because: Reason
    rows_before: int
    epoch_rows: int
    at_s: float


@dataclass(frozen=True)
class Crossed:
    """A candidate's wealth reached the level of its epoch.

    Attributes:
        epoch: In which.
        risk: ε it was tested against.
        candidate: Its place in the order, from 0.
        rows: Evidence rows of the epoch until then.
        disagreements: Of this candidate among them.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: int
    risk: float
    candidate: int
    rows: int
    disagreements: int
    at_s: float


@dataclass(frozen=True)
class Withdrawn:
    """The alarm took what was in force out of force.

    Attributes:
        epoch: In which.
        rows: Evidence rows that what is in force was watched on.
        disagreements: Among them.
        at_s: When, on the clock of :func:`decide`.
    """

    epoch: int
    rows: int
    disagreements: int
    at_s: float


Event = Begun | Crossed | Withdrawn


@dataclass(frozen=True)
class Held:
    """What an epoch that has ended left in force.

    Attributes:
        candidate: Its place in the order.
        epoch: That earned it.
        rows: Evidence rows between the end of that epoch and the beginning of the present one.
        since_s: When that epoch ended.
    """

    candidate: int
    epoch: int
    rows: int
    since_s: float


@dataclass(frozen=True)
class State:
    """Where the epochs stand; before the first event nothing has begun.

    Attributes:
        epoch: The present one, 0 before the first.
        epoch_rows: Evidence rows after which it ends.
        because: What ended the one before.
        crossed: Risks and candidates that have reached their level in it.
        held: By risk, what earlier epochs left.
        withdrawn: Whether the alarm was ever raised since the last reset: the artifact's own
            certificates, of other inputs than the traffic's, are out of force from then on.
    """

    epoch: int = 0
    epoch_rows: int = 0
    because: Reason = "start"
    crossed: frozenset[tuple[float, int]] = frozenset()
    held: tuple[tuple[float, Held], ...] = ()
    withdrawn: bool = False

    def earned(self, risk: float) -> int | None:
        """The boldest candidate whose whole prefix has crossed in the present epoch."""
        candidate = 0
        while (risk, candidate) in self.crossed:
            candidate += 1
        return candidate - 1 if candidate else None


def in_force(rules: Rules, state: State, rows: int, now_s: float) -> tuple[int | None, ...]:
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
    found: list[int | None] = []
    for risk in rules.risks:
        places = [state.earned(risk)]
        old = held.get(risk)
        if old is not None and _young(rules, old, rows, now_s):
            places.append(old.candidate)
        found.append(max((one for one in places if one is not None), default=None))
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
    if counts.disagreements.shape != (rules.candidates,):
        raise ValueError(
            f"counts of {counts.disagreements.shape} are not of {rules.candidates} candidates"
        )
    if not state.epoch:
        return [Begun(1, "start", 0, rules.epoch_rows, now_s)]
    if not earning:
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
        events.append(Begun(state.epoch + 1, "rows", counts.rows, rules.epoch_rows, now_s))
    return events


def proved(rules: Rules, event: Crossed) -> bool:
    """Whether what is said of a crossing follows from its counts, under rules."""
    known = event.risk in rules.risks and 0 <= event.candidate < rules.candidates
    if not known or event.epoch < 1 or not 0 <= event.disagreements <= event.rows:
        return False
    wealth = float(log_wealth(event.rows, event.disagreements, event.risk))
    goal = math.log(1 / level_of(event.epoch, rules.level))
    # Sums of logarithms; another machine's may end otherwise.
    return wealth >= goal or math.isclose(wealth, goal, rel_tol=1e-9)


def withdraw(
    rules: Rules, state: State, rows: int, disagreements: int, now: Counts, now_s: float
) -> list[Event]:
    """What follows when the alarm says that what is in force no longer holds.

    Args:
        rules: As for :func:`decide`.
        state: Where the epochs stand.
        rows: Evidence rows that what is in force was watched on.
        disagreements: Among them.
        now: Evidence of the present epoch.
        now_s: Seconds on the clock of :func:`decide`.
    """
    return [
        Withdrawn(state.epoch, rows, disagreements, now_s),
        Begun(state.epoch + 1, "alarm", now.rows, rules.epoch_rows, now_s),
    ]


def reset(rules: Rules, epoch: int, now_s: float) -> list[Event]:
    """What follows when everything that was earned, and the alarm, shall be forgotten.

    Args:
        rules: As for :func:`decide`.
        epoch: The last that any worker was told of.
        now_s: Seconds on the clock of :func:`decide`.
    """
    return [Begun(epoch + 1, "reset", 0, rules.epoch_rows, now_s)]


def applied(state: State, events: Iterable[Event]) -> State:
    """The state once these have happened too, in this order.

    Events that do not follow on the state change nothing: two replicas may have seen the same
    counts, and the first to say so was first.
    """
    for event in events:
        if isinstance(event, Begun):
            if event.epoch > state.epoch:
                state = _begun(state, event)
        elif event.epoch == state.epoch:
            if isinstance(event, Crossed):
                crossed = state.crossed | {(event.risk, event.candidate)}
                state = replace(state, crossed=crossed)
            else:
                # What one candidate's evidence shows of the traffic concerns all of them.
                state = replace(state, crossed=frozenset(), held=(), withdrawn=True)
    return state


def _begun(state: State, event: Begun) -> State:
    if event.because == "reset":
        return State(event.epoch, event.epoch_rows, event.because)
    held = {risk: replace(old, rows=old.rows + event.rows_before) for risk, old in state.held}
    for risk in {risk for risk, _ in state.crossed}:
        candidate = state.earned(risk)
        if candidate is not None:
            held[risk] = Held(candidate, state.epoch, 0, event.at_s)
    kept = tuple(sorted(held.items()))
    return State(event.epoch, event.epoch_rows, event.because, held=kept, withdrawn=state.withdrawn)


def _young(rules: Rules, old: Held, rows: int, now_s: float) -> bool:
    if old.rows + rows >= rules.greatest_age_rows:
        return False
    # A clock that went back says nothing of an age, and what is not known is not bold.
    return math.isinf(rules.greatest_age_s) or (
        -SKEW_S <= now_s - old.since_s <= rules.greatest_age_s
    )


def unordered(candidates: Sequence[Sequence[float]]) -> tuple[int, int] | None:
    """Two candidates of which the later is nowhere bolder than the earlier; ``None`` if none are.

    Args:
        candidates: Thresholds of each, from careful to bold; +inf never lets a row go.
    """
    for (place, one), (later, other) in itertools.combinations(enumerate(candidates), 2):
        if all(after >= before for before, after in zip(one, other, strict=True)):
            return place, later
    return None
