"""Work that waits until replies are sent, and is then done for several batches at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from skipserve.telemetry.series import COUNTED_S

logger = logging.getLogger(__name__)


class DeferredWork:
    """Work of one model that is put off; it is done in the event loop, between two batches.

    A batch may run in a thread, which may put work off.
    """

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._begun_s = 0.0
        self._running = False
        self._due = False

    def when_idle(self, work: Callable[[], None]) -> None:
        """Put work off."""
        self._work.append(work)

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the loop: a batch begins."""
        self._running = True
        self._begun_s = loop.time()

    def end(self, loop: asyncio.AbstractEventLoop) -> None:
        """In the loop: a batch has ended."""
        self._running = False
        if self._due or loop.time() - self._begun_s > COUNTED_S:
            # Scheduled behind the tasks that send the replies.
            loop.call_soon(self.work)
        elif self._work and self._timer is None:
            self._timer = loop.call_later(COUNTED_S, self._is_due)

    def work(self) -> None:
        """Do the deferred work; its errors are logged."""
        self._due = False
        while self._work:
            try:
                self._work.pop(0)()
            except Exception:
                logger.exception("deferred work failed")

    def _is_due(self) -> None:
        self._timer = None
        if self._running:
            self._due = True
        else:
            self.work()
