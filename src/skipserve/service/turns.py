"""Whose batch is next: models that share an event loop take turns, one batch each."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Protocol

# Shorter batches run in the loop itself, without the hand-over to a thread; longer ones would hold
# up health checks and other models there (docs/decisions/0036-hosts.md).
LONG_S = 1e-3
# Weight of the newest batch in the estimate of how long one takes.
NEWEST = 0.2


# Has a callable called in the loop.
Tell = Callable[[Callable[[], None]], object]


class Works(Protocol):
    """Has batches to run."""

    def waits(self) -> bool:
        """Whether there is something to run now."""

    def begin(self) -> Callable[[Tell], None]:
        """In the loop: the next batch, to be run anywhere; what concerns the loop it tells it."""

    def end(self) -> None:
        """In the loop: the batch is over."""


class Turns:
    """Runs the batches of several models, fairly: one each in turn, short ones in the loop.

    Args:
        loop: All is called in.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._line: deque[Works] = deque()
        self._standing: set[int] = set()
        self._took_s: dict[int, float] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._scheduled = False

    def want(self, works: Works) -> None:
        """Ask for a turn; without effect for one who waits for one, or has one."""
        if id(works) in self._standing:
            return
        self._standing.add(id(works))
        self._line.append(works)
        self._schedule()

    def took(self, works: Works) -> float:
        """Seconds that a batch of somebody takes, by the last ones."""
        return self._took_s.get(id(works), 0.0)

    def close(self) -> None:
        """End the threads; their batches first."""
        for thread in self._threads.values():
            thread.shutdown()

    def _schedule(self) -> None:
        if not self._scheduled and self._line:
            self._scheduled = True
            self._loop.call_soon(self._next)

    def _next(self) -> None:
        self._scheduled = False
        works = self._line.popleft()
        run = works.begin()
        if self.took(works) < LONG_S:
            self._timed(works, run, _at_once)
            self._done(works)
        else:
            thread = self._threads.get(id(works))
            if thread is None:
                thread = self._threads[id(works)] = ThreadPoolExecutor(1)
            tell = self._loop.call_soon_threadsafe
            running = self._loop.run_in_executor(thread, self._timed, works, run, tell)
            running.add_done_callback(lambda _: self._done(works))
        self._schedule()

    def _timed(self, works: Works, run: Callable[[Tell], None], tell: Tell) -> None:
        start = perf_counter()
        run(tell)
        took_s, before_s = perf_counter() - start, self.took(works)
        # The first is what there is; a single slow one moves the estimate by a fifth.
        self._took_s[id(works)] = before_s + (NEWEST if before_s else 1.0) * (took_s - before_s)

    def _done(self, works: Works) -> None:
        works.end()
        self._standing.discard(id(works))
        if works.waits():
            self.want(works)


def _at_once(todo: Callable[[], None]) -> None:
    todo()
