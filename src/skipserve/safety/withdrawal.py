"""A withdrawal: what the alarm has said, until it is written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from skipserve.earning.counts import Counts
from skipserve.earning.epochs import decide, withdraw
from skipserve.earning.events import Begun, Event, Withdrawn
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied


@dataclass(frozen=True)
class Withdrawal:
    """The alarm was raised, and the ledger does not say so yet.

    Attributes:
        rows: Evidence rows that what is in force was watched on.
        disagreements: Among them.
        epoch: That workers counted for meanwhile; 0 if for none.
    """

    rows: int
    disagreements: int
    epoch: int

    def is_settled(self, events: Sequence[Event]) -> bool:
        """Whether a ledger holds something since that makes it void: the same, or a reset.

        That an epoch ended by its rows, or that something was earned, does not.
        """
        if not self.epoch:
            return False
        return any(
            (isinstance(one, Withdrawn) and one.epoch >= self.epoch)
            or (isinstance(one, Begun) and one.epoch > self.epoch and one.because == "reset")
            for one in events
        )

    def events(self, rules: Rules, state: State, of_epoch: int, at_s: float) -> Sequence[Event]:
        """What follows in a ledger.

        Args:
            rules: Of its epochs.
            state: Where they stand there.
            of_epoch: Evidence rows of its present epoch.
            at_s: When, on the clock of the epochs.
        """
        none = Counts.none(rules.candidates)
        first: Sequence[Event] = () if state.epoch else decide(rules, state, none, at_s)
        state = applied(state, first)
        return [*first, *withdraw(rules, state, self.rows, self.disagreements, of_epoch, at_s)]
