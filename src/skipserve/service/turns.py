"""Scheduling: models that share an event loop take turns, one batch each."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Protocol

from skipserve.service.arrivals import Arrivals

# Shorter steps run in the loop itself, without the hand-over to a thread and the fight for Python's
# lock; longer ones would hold up health checks and other models there
# (docs/decisions/0036-hosts.md).
LONG_S = 1e-2
# Weight of the newest batch in the estimate of how long one takes.
NEWEST = 0.2
# Longest that a batch waits for requests that are arriving, and how long the loop gives Python's
# lock each time to the thread that hands them over (docs/decisions/0049-small-batches.md).
GATHER_S = 5e-4
PAUSE_S = 2e-5
# Work to do in the loop after a step.
Todo = Callable[[], None]


class BatchSource(Protocol):
    """A source of batches."""

    def waits(self) -> bool:
        """Whether a batch is waiting."""

    def is_full(self) -> bool:
        """Whether a batch of the largest size is waiting."""

    def begin(self) -> Iterator[Todo]:
        """In the loop: the steps of the next batch; each may run in any thread."""

    def end(self) -> None:
        """In the loop: the batch has ended."""


class Turns:
    """Runs the batches of several models, fairly: one each in turn, short steps in the loop.

    Between two steps in the loop it sends and receives, and others have their turn.

    Args:
        loop: All is called in.
        arrivals: Requests that a batch waits a moment for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, arrivals: Arrivals | None = None) -> None:
        self._loop = loop
        self._arrivals = arrivals or Arrivals()
        self._line: deque[BatchSource] = deque()
        self._waiting: set[int] = set()
        self._took_s: dict[int, float] = {}
        self._threads: dict[int, ThreadPoolExecutor] = {}
        self._in_loop: dict[int, Iterator[Todo]] = {}
        self._scheduled = False

    def want(self, source: BatchSource) -> None:
        """Ask for a turn; no effect while one is pending or running."""
        if id(source) in self._waiting:
            return
        self._waiting.add(id(source))
        self._line.append(source)
        self._schedule()

    def took(self, source: BatchSource) -> float:
        """Seconds of the longest step of a source's batches, a moving average."""
        return self._took_s.get(id(source), 0.0)

    def close(self) -> None:
        """In the loop: run the batches that have begun to their end, and end the threads."""
        for steps in [*self._in_loop.values()]:
            for todo in steps:
                todo()
        for thread in self._threads.values():
            thread.shutdown()

    def _schedule(self) -> None:
        if not self._scheduled and self._line:
            self._scheduled = True
            self._loop.call_soon(self._next, perf_counter() + GATHER_S)

    def _next(self, latest_s: float) -> None:
        source, now_s = self._line[0], perf_counter()
        if now_s < latest_s and self._arrivals.soon(now_s) and not source.is_full():
            time.sleep(PAUSE_S)
            self._loop.call_soon(self._next, latest_s)
            return
        self._scheduled = False
        self._line.popleft()
        steps = source.begin()
        if self.took(source) < LONG_S:
            self._in_loop[id(source)] = steps
            self._step(source, steps, 0.0)
        else:
            thread = self._threads.get(id(source))
            if thread is None:
                thread = self._threads[id(source)] = ThreadPoolExecutor(1)
            running = self._loop.run_in_executor(thread, self._run, steps)
            running.add_done_callback(lambda done: self._done(source, done.result()))
        self._schedule()

    def _step(self, source: BatchSource, steps: Iterator[Todo], longest_s: float) -> None:
        start = perf_counter()
        todo = next(steps, None)
        longest_s = max(longest_s, perf_counter() - start)
        if todo is None:
            self._done(source, longest_s)
        else:
            todo()
            self._loop.call_soon(self._step, source, steps, longest_s)

    def _run(self, steps: Iterator[Todo]) -> float:
        longest_s = 0.0
        start = perf_counter()
        for todo in steps:
            longest_s = max(longest_s, perf_counter() - start)
            self._loop.call_soon_threadsafe(todo)
            start = perf_counter()
        return longest_s

    def _done(self, source: BatchSource, longest_s: float) -> None:
        before_s = self.took(source)
        # The first batch sets the estimate; later ones move it by a fifth.
        self._took_s[id(source)] = before_s + (NEWEST if before_s else 1.0) * (longest_s - before_s)
        self._in_loop.pop(id(source), None)
        source.end()
        self._waiting.discard(id(source))
        if source.waits():
            self.want(source)
