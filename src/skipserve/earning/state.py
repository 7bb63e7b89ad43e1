"""Where the epochs stand: what their events lead to, without files or clocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from skipserve.earning.events import Begun, Crossed, Event, Proposed, Reason
from skipserve.earning.ladder import OWN, Place


@dataclass(frozen=True)
class Held:
    """What an epoch that has ended left in force.

    Attributes:
        candidate: Its place in the order.
        epoch: That earned it.
        rows: Evidence rows between the end of that epoch and the beginning of the present one.
        since_s: When that epoch ended.
        proposal: The ladder that it is of.
    """

    candidate: int
    epoch: int
    rows: int
    since_s: float
    proposal: str = OWN

    @property
    def place(self) -> Place:
        """The candidate, in its ladder."""
        return Place(self.candidate, self.proposal)


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
        propose_rows: So many rows propose now and are no evidence; 0 once they have.
        proposal: The ladder that the present epoch earns for.
        candidates: Of that ladder; 0 for as many as the artifact has.
        blocks: What the candidates of each ladder run on the traffic, by its name.
        over: Whether the alarm has ended the present epoch: nothing is earned in it any more.
    """

    epoch: int = 0
    epoch_rows: int = 0
    because: Reason = "start"
    crossed: frozenset[tuple[float, int]] = frozenset()
    held: tuple[tuple[float, Held], ...] = ()
    withdrawn: bool = False
    propose_rows: int = 0
    proposal: str = OWN
    candidates: int = 0
    blocks: tuple[tuple[str, tuple[float, ...]], ...] = ()
    over: bool = False

    def earned(self, risk: float) -> int | None:
        """The boldest candidate whose whole prefix has crossed in the present epoch."""
        candidate = 0
        while (risk, candidate) in self.crossed:
            candidate += 1
        return candidate - 1 if candidate else None

    def bolder(self, one: Place | None, other: Place | None) -> Place | None:
        """The bolder of two; the first, if that cannot be told.

        In one ladder the later is. Of two ladders it is the one that runs less on the rows that
        proposed last.
        """
        if one is None or other is None:
            return other if one is None else one
        if one.proposal == other.proposal:
            return max(one, other)
        runs = dict(self.blocks)
        mine, theirs = (runs.get(place.proposal, ()) for place in (one, other))
        known = one.candidate < len(mine) and other.candidate < len(theirs)
        return other if known and theirs[other.candidate] < mine[one.candidate] else one


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
                if state.propose_rows or state.over:
                    continue  # what could be earned is not fixed yet, or is not to be relied on
                crossed = state.crossed | {(event.risk, event.candidate)}
                state = replace(state, crossed=crossed)
            elif isinstance(event, Proposed):
                state = _proposed(state, event)
            else:
                # What one candidate's evidence shows of the traffic concerns all of them. The epoch
                # is over by it, also where the line that begins the next one was never written.
                state = replace(
                    state,
                    crossed=frozenset(),
                    held=(),
                    withdrawn=True,
                    propose_rows=0,
                    over=True,
                )
    return state


def _proposed(state: State, event: Proposed) -> State:
    if not state.propose_rows:
        return state
    return replace(
        state,
        propose_rows=0,
        proposal=event.proposal,
        candidates=len(event.candidates),
        blocks=tuple(sorted(event.blocks.items())),
    )


def _begun(state: State, event: Begun) -> State:
    fresh = State(event.epoch, event.epoch_rows, event.because, propose_rows=event.propose_rows)
    if event.because == "reset":
        return fresh
    held = {risk: replace(old, rows=old.rows + event.rows_before) for risk, old in state.held}
    for risk in {risk for risk, _ in state.crossed}:
        candidate = state.earned(risk)
        if candidate is not None:
            held[risk] = Held(candidate, state.epoch, 0, event.at_s, state.proposal)
    kept = tuple(sorted(held.items()))
    return replace(fresh, held=kept, withdrawn=state.withdrawn, blocks=state.blocks)
