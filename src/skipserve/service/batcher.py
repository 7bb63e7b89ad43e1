"""Batches of one model: what came in while the last one ran.

    answer → queue → (a turn comes) → begin → Service.answers → replies → work put off

A lone request waits for nobody, and a reply leaves when its last row has.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

from skipserve.errors import InputError
from skipserve.protocols.deadline import deadline_exceeded, time_allowed
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.service.service import Service
from skipserve.service.turns import Todo, Turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueueLimits:
    """What a queue allows.

    Attributes:
        batch: Most requests in a batch.
        queue: Most requests that wait.
        wait_s: Longest that one may wait, in seconds.
        gather_s: Longest that a batch which is not full waits for more, in seconds.
        join_s: Requests that come so soon after a batch has begun set out at once, before its rows
            that are on their way, in seconds.
    """

    batch: int
    queue: int
    wait_s: float
    gather_s: float = 0.0
    join_s: float = 0.0


@dataclass(frozen=True, eq=False)  # one is the same as itself alone
class _Waiting:
    request: RawRequest
    reply: asyncio.Future[Reply]
    since_s: float
    allowed_s: float


class Watch(Protocol):
    """Looks whether batches end."""

    def begin(self) -> None:
        """A batch begins."""

    def end(self) -> None:
        """It ended."""


class Batcher:
    """The queue of one model; all of it happens in one event loop.

    Args:
        service: Answers the batches.
        limits: Of the queue.
        turns: When a batch may run.
        idle: Work that the service put off until its replies were sent.
        watch: Is told when a batch begins and ends.
    """

    def __init__(
        self, service: Service, limits: QueueLimits, turns: Turns, idle: DeferredWork, watch: Watch
    ) -> None:
        self._service = service
        self._limits = limits
        self._turns = turns
        self._idle = idle
        self._watch = watch
        self._queue: deque[_Waiting] = deque()
        self._gathering: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; a full queue answers it at once.

        One that is cancelled, or whose own deadline passes, while it waits is not run.
        """
        try:
            allowed_s = time_allowed(request.headers)
            if allowed_s <= 0.0:
                raise deadline_exceeded(allowed_s)
            if len(self._queue) >= self._limits.queue:
                raise InputError(
                    "overloaded",
                    f"{len(self._queue)} requests wait already; ask again later, or less often",
                )
        except InputError as error:
            return self._service.turn_away(request, error)
        reply: asyncio.Future[Reply] = self._loop.create_future()
        one = _Waiting(request, reply, perf_counter(), allowed_s)
        self._queue.append(one)
        self._ask_for_a_turn()
        try:
            if allowed_s == math.inf:
                return await reply
            timer = self._loop.call_later(allowed_s, self._expire, one)
            try:
                return await reply
            finally:
                timer.cancel()
        except asyncio.CancelledError:
            if self._leaves(one):
                self._service.abandoned()
            raise

    def _expire(self, one: _Waiting) -> None:
        if self._leaves(one):
            error = deadline_exceeded(one.allowed_s)
            one.reply.set_result(self._service.turn_away(one.request, error))

    def _leaves(self, one: _Waiting) -> bool:
        """Take somebody out of the queue; whether they were in it still."""
        try:
            # The thread of a batch takes from the same queue: this is one step of the interpreter.
            self._queue.remove(one)
        except ValueError:
            return False
        if self._gathering is not None and not self._queue:
            self._gathering.cancel()  # whoever comes next has a batch of their own to fill
        return True

    def _ask_for_a_turn(self) -> None:
        gather_s = self._limits.gather_s
        if not gather_s or len(self._queue) >= self._limits.batch:
            self._turns.want(self)
        elif len(self._queue) == 1:
            self._gathering = self._loop.call_later(gather_s, self._turns.want, self)

    def waits(self) -> bool:
        """Whether requests wait."""
        return bool(self._queue)

    def begin(self) -> Iterator[Todo]:
        """The next batch, stage by stage; each may be run anywhere."""
        if self._gathering is not None:
            self._gathering.cancel()
        self._watch.begin()
        return self._steps()

    def end(self) -> None:
        """The batch is over."""
        self._watch.end()
        # Behind the tasks that send the replies, which wake up first.
        self._loop.call_soon(self._idle.work)

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows, and count it."""
        return self._service.turn_away(request, error)

    def _steps(self) -> Iterator[Todo]:
        begun_s = perf_counter()
        taken: list[_Waiting] = []
        late: list[tuple[_Waiting, Reply]] = []

        def take() -> list[RawRequest]:
            some = self._take(late)
            taken.extend(some)
            return [one.request for one in some]

        def more() -> list[RawRequest]:
            joins = self._queue and perf_counter() - begun_s < self._limits.join_s
            return take() if joins else []

        try:
            first = take()
            for answers in self._service.answers(first, more) if first else ():
                ready = [(taken[place], reply) for place, reply in answers]
                yield partial(_send, [*late, *ready])
                late.clear()
        except Exception:  # a fault of ours must not keep this model's turn for ever
            logger.exception("a batch of %d requests failed", len(taken))
            failed = [(one, self._service.fail(one.request)) for one in taken]
            yield partial(_send, [*late, *failed])
        else:
            if late:
                yield partial(_send, late)

    def _take(self, late: list[tuple[_Waiting, Reply]]) -> list[_Waiting]:
        """Who waits, as many as fit; those who waited too long are told so."""
        queue = self._queue
        taken = [queue.popleft() for _ in range(min(len(queue), self._limits.batch))]
        now_s = perf_counter()
        self._service.waited([now_s - one.since_s for one in taken])
        kept = []
        for one in taken:
            waited_s = now_s - one.since_s
            if waited_s <= min(self._limits.wait_s, one.allowed_s):
                kept.append(one)
            elif waited_s > one.allowed_s:
                error = deadline_exceeded(one.allowed_s)
                late.append((one, self._service.turn_away(one.request, error)))
            else:
                error = InputError(
                    "waited_too_long",
                    f"the request waited longer than {self._limits.wait_s:g} s; ask again later",
                )
                late.append((one, self._service.turn_away(one.request, error)))
        return kept


def _send(answers: Sequence[tuple[_Waiting, Reply]]) -> None:
    for one, reply in answers:
        if not one.reply.done():  # its client may be gone, or a fault came behind its reply
            one.reply.set_result(reply)


class DeferredWork:
    """Keeps the work that a service puts off until its replies were sent."""

    def __init__(self) -> None:
        self._work: list[Callable[[], None]] = []

    def when_idle(self, work: Callable[[], None]) -> None:
        """Put work off."""
        self._work.append(work)

    def work(self) -> None:
        """Do what was put off; an error in it is logged and ends nothing."""
        while self._work:
            try:
                self._work.pop(0)()
            except Exception:
                logger.exception("work that was put off failed")
