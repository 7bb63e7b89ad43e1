"""The moments in which a worker would only wait: when what no client needs can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Idle(Protocol):
    """Knows when the worker would only wait for its next message."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Put work off until the replies are on their way."""


class Immediate:
    """For a worker that tells nobody when it is idle."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Do ``work`` now."""
        work()
