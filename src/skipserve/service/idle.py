"""Idle moments of a worker, for work that no client waits for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Idle(Protocol):
    """Runs work when the worker would only wait for its next message."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Defer work until the replies are sent."""


class Immediate:
    """Runs work at once, for workers without idle moments."""

    def when_idle(self, work: Callable[[], None]) -> None:
        """Run ``work`` now."""
        work()
