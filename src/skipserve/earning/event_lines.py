"""Events as lines of a file, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from skipserve.earning.events import Begun, Crossed, Event, Proposed, Withdrawn
from skipserve.earning.lines import damaged

_KINDS: dict[str, type[Event]] = {
    "begun": Begun,
    "crossed": Crossed,
    "proposed": Proposed,
    "withdrawn": Withdrawn,
}


def events_of(lines: Sequence[bytes], file: Path) -> list[Event]:
    """The events in the lines of a file.

    Raises:
        StateError: If a line is none.
    """
    found: list[Event] = []
    for text in lines:
        try:
            said: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
            found.append(msgspec.convert(said, _KINDS[said.pop("kind")]))
        except (msgspec.MsgspecError, LookupError, TypeError):
            raise damaged(file, "a line is no event") from None
    return found


def told(event: Event) -> dict[str, Any]:
    """An event as a line says it."""
    kind = next(name for name, of in _KINDS.items() if isinstance(event, of))
    return {"kind": kind, **msgspec.to_builtins(event)}
