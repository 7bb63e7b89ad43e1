"""Whether what is said to be earned follows from its counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

from skipserve.artifacts.certificates import from_json
from skipserve.earning.events import Begun, Crossed, Event, Proposed
from skipserve.earning.ladder import OWN, Ladder, Place, name_of
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.earning.wealth import level_of, log_wealth
from skipserve.intervals import spelled


def flaw(rules: Rules, events: Sequence[Event]) -> str:
    """What in a history does not follow from what it follows from; empty if all does.

    Args:
        rules: Of the epochs.
        events: From the first on.
    """
    state = State()
    for event in events:
        if isinstance(event, Proposed) and not proposes(event, rules.own):
            return f"what epoch {event.epoch} proposed is not what it is named by, or not for here"
        if isinstance(event, Crossed):
            known = 0 < event.epoch <= state.epoch
            of_now = event.epoch == state.epoch  # else it changes nothing
            shown = not state.propose_rows and proved(rules, event, state.candidates)
            if not known or (of_now and not shown):
                what = f"candidate {event.candidate + 1} is not earned at {spelled(event.risk)}"
                return f"{what} by its counts"
        state = applied(state, [event])
    return ""


def proposes(event: Proposed, own: Ladder | None) -> bool:
    """Whether a proposal is what it is named by, in order, and one for this model.

    Args:
        event: The proposal.
        own: The artifact's own ladder; ``None`` leaves it unchecked whether it is for this model.
    """
    if event.proposal == OWN:
        return not event.candidates
    if len({len(one) for one in event.candidates}) != 1:
        return False
    made = Ladder.of(event.candidates, event.guard_limit)
    if own is not None and not made.may_follow(own):
        return False
    ordered = unordered([tuple(map(from_json, one)) for one in event.candidates]) is None
    named = event.proposal == name_of(event.candidates, event.guard_limit)
    return ordered and named


def proved(rules: Rules, event: Crossed, candidates: int = 0) -> bool:
    """Whether what is said of a crossing follows from its counts.

    Args:
        rules: Of the epochs.
        event: The crossing.
        candidates: That there are in its epoch; 0 for as many as the artifact has.
    """
    known = event.risk in rules.risks and 0 <= event.candidate < (candidates or rules.candidates)
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


def proof_of(events: Iterable[Event], risk: float, place: Place) -> Crossed | None:
    """The last crossing of a candidate; ``None`` if it has not crossed."""
    proposal, found = OWN, None
    for one in events:
        if isinstance(one, Begun):
            proposal = OWN
        elif isinstance(one, Proposed):
            proposal = one.proposal
        elif isinstance(one, Crossed) and (one.risk, one.candidate, proposal) == (risk, *place):
            found = one
    return found
