"""Where the epochs stand: what their events lead to, without files or clocks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from skipserve.earning.events import Begun, Crossed, Event, Reason


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
