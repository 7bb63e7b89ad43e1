"""The client of one request: its body must arrive in time, and it must stay connected."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

# Most requests end before the first check, which would cost more than they do.
LOOK_S = 0.02
# Timeout of a body.
BODY_S = 30.0


class Client:
    """Cancels the task of a request whose client is too slow or disconnected.

    Made in that task, which calls :meth:`has_sent` once it has the whole body, and :meth:`close`
    in the end.

    Args:
        gone: Ends when the client has hung up; called once the body is there, if at all.
        body_s: Seconds that a body may take.

    Attributes:
        is_slow: The task was cancelled because the body did not come.
        is_gone: The task was cancelled because the client hung up.
    """

    def __init__(self, gone: Callable[[], Awaitable[None]], body_s: float = BODY_S) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._gone = gone
        self._body_s = body_s
        self._has_sent = False
        self._watching: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_S, self._look)
        self._looked = False
        self.is_slow = False
        self.is_gone = False

    def has_sent(self) -> None:
        """The body has arrived."""
        self._has_sent = True
        if self._looked:
            self._timer.cancel()
            self._timer = self._loop.call_later(LOOK_S, self._watch)

    def close(self) -> None:
        """The request is answered."""
        self._timer.cancel()
        if self._watching is not None:
            self._watching.cancel()

    def _look(self) -> None:
        self._looked = True
        if self._has_sent:
            self._watch()
        else:
            self._timer = self._loop.call_later(self._body_s, self._give_up)

    def _give_up(self) -> None:
        self.is_slow = True
        self._task.cancel()

    def _watch(self) -> None:
        self._watching = self._loop.create_task(self._hang_on())

    async def _hang_on(self) -> None:
        with contextlib.suppress(Exception):  # a server that cannot tell counts as connected
            await self._gone()
            self.is_gone = True
            self._task.cancel()
