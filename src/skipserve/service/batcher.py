"""Batches of one model: what came in while the last one ran.

    answer → queue → (a turn comes) → begin → Service.answers → replies → work put off

A lone request waits for nobody, and a reply leaves when its last row has.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

from skipserve.errors import InputError
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.service.service import Service
from skipserve.service.turns import Todo, Turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
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


@dataclass(frozen=True)
class _Waiting:
    request: RawRequest
    reply: asyncio.Future[Reply]
    since_s: float


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
        self, service: Service, limits: Limits, turns: Turns, idle: Later, watch: Watch
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
        """Answer one request; a full queue answers it at once."""
        if len(self._queue) >= self._limits.queue:
            return self._service.refuse(
                request,
                InputError(
                    "overloaded",
                    f"{len(self._queue)} requests wait already; ask again later, or less often",
                ),
            )
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._queue.append(_Waiting(request, reply, perf_counter()))
        self._ask_for_a_turn()
        return await reply

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

    def refuse(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows."""
        return self._service.refuse(request, error)

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
        error = InputError(
            "waited_too_long",
            f"the request waited longer than {self._limits.wait_s:g} s; ask again later",
        )
        kept = []
        for one in taken:
            if now_s - one.since_s > self._limits.wait_s:
                late.append((one, self._service.refuse(one.request, error)))
            else:
                kept.append(one)
        return kept


def _send(answers: Sequence[tuple[_Waiting, Reply]]) -> None:
    for one, reply in answers:
        if not one.reply.done():  # its client may be gone, or a fault came behind its reply
            one.reply.set_result(reply)


class Later:
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
