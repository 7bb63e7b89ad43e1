"""What a model has earned as one file, to be taken over where the same files serve: another volume,
another cluster. It is as trustworthy as whoever hands it over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from skipserve.earning.event_lines import events_of, told
from skipserve.earning.events import Begun, Event
from skipserve.earning.ledger import Ledger
from skipserve.earning.lines import Header, contents, damaged, line
from skipserve.earning.proofs import flaw
from skipserve.earning.rules import Rules
from skipserve.earning.state import State, applied
from skipserve.errors import StateError
from skipserve.files import replace_text


def write_earned(file: Path, ledger: Ledger, rows: int, rules: Rules, at_s: float) -> None:
    """Write what a ledger says, with the present epoch ended there.

    Args:
        file: To write.
        ledger: As it was read.
        rows: Evidence rows of the present epoch.
        rules: Of its epochs.
        at_s: Seconds since 1970.

    Raises:
        StateError: If nothing was earned.
    """
    epoch = ledger.state.epoch + 1
    end = Begun(epoch, "rows", rows, rules.epoch_rows, at_s, rules.propose_rows)
    events = [*ledger.events, end]
    if not applied(State(), events).held:
        raise StateError("nothing is earned yet: there is nothing to export")
    lines = [line(Header("earned", ledger.binding)), *(line(told(one)) for one in events)]
    replace_text(file, b"".join(lines).decode())


def read_earned(file: Path, binding: str, rules: Rules) -> Sequence[Event]:
    """The events in a file that :func:`write_earned` wrote.

    Raises:
        StateError: If it is damaged, empty, of other files or of a newer version, or if a
            candidate in it has not reached its level with its counts.
        OSError: If it cannot be read.
    """
    events = events_of(contents(file.read_bytes(), file, Header("earned", binding)), file)
    if how := flaw(rules, events):
        raise damaged(file, how)
    if not applied(State(), events).held:
        raise StateError(f"{file} holds nothing that was earned")
    if not isinstance(events[-1], Begun):
        raise damaged(file, "its last line begins no epoch")
    return events


def take_over(ledger: Ledger, events: Sequence[Event]) -> None:
    """Put in force what was earned elsewhere, while an epoch of its own earns here.

    Args:
        ledger: Of the model here.
        events: Of :func:`read_earned`.

    Raises:
        StateError: If something was earned here, or the alarm was raised.
        OSError: If it cannot be written; then nothing has happened.
    """

    def decided(last: int) -> Sequence[Event]:
        state = ledger.read()  # under the lock: the alarm may just have been raised
        if state.crossed or state.held or state.withdrawn:
            raise StateError(
                "this model has a history of its own, which cannot be joined with another; forget "
                "it first with --reset"
            )
        *before, end = events
        assert isinstance(end, Begun)  # as read
        # Workers here count for an epoch that they were told of; theirs is none of the others'.
        epoch, rules = max(end.epoch, last + 1), ledger.rules
        begun = replace(
            end, epoch=epoch, epoch_rows=rules.epoch_rows, propose_rows=rules.propose_rows
        )
        return [*before, begun]

    ledger.rewrite(decided)
