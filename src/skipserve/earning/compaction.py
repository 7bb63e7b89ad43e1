"""What a history can do without: crossings and proposals of epochs that nothing in force is of.

A model that earns for a year goes through tens of thousands of epochs, and whoever reads the ledger
replays it. That an epoch was is kept for ever, for a certificate names them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from skipserve.earning.events import Begun, Crossed, Event, Proposed
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied


def compacted(rules: Rules, events: Sequence[Event]) -> Sequence[Event]:
    """The same history without what changes nothing any more.

    It leads to the same state, but for candidates that are too old to be in force ever again.

    Args:
        rules: Of the epochs.
        events: From the first on.
    """
    resets = (
        i for i, one in enumerate(events) if isinstance(one, Begun) and one.because == "reset"
    )
    events = events[max(resets, default=0) :]
    state = applied(State(), events)
    held = tuple((risk, old) for risk, old in state.held if old.rows < rules.greatest_age_rows)
    oldest = min([state.epoch, *(old.epoch for _, old in held)])
    # The ladder of the epoch before is a candidate for the next, and its runs say what is bolder.
    before = (one.epoch for one in events if isinstance(one, Proposed))
    used = max((epoch for epoch in before if epoch < state.epoch), default=0)

    def needed(one: Event) -> bool:
        if isinstance(one, Crossed):
            return one.epoch >= oldest
        return not isinstance(one, Proposed) or one.epoch >= oldest or one.epoch == used

    fewer = [one for one in events if needed(one)]
    same = applied(State(), fewer) == replace(state, held=held)
    return fewer if same else events
