"""The moments in which a worker would only wait: when what no client needs can be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Idle(Protocol):
    """Knows when the worker would only wait for its next message."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Put work off until the reply is sent and nothing else waits."""

    def message_waits(self) -> bool:
        """Whether the next message has begun to arrive, so that what may wait should."""


class AtOnce:
    """For a worker that tells nobody when it is idle."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Do ``work`` now."""
        work()

    def message_waits(self) -> bool:
        """Nobody knows."""
        return False
