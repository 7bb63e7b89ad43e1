"""Batching: requests that arrive while a batch runs form the next one.

    answer → queue → (a turn comes) → begin → Service.answers → replies → work put off

A lone request does not wait, and a reply is sent when its last row has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Protocol

from skipserve.errors import InputError
from skipserve.protocols.deadline import deadline_exceeded, time_allowed
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.service.deferred import DeferredWork
from skipserve.service.pace import Pace
from skipserve.service.service import Service
from skipserve.service.turns import Todo, Turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QueueLimits:
    """Limits of a queue.

    Attributes:
        batch: Most requests in a batch.
        queue: Most requests that wait.
        wait_s: Longest that one may wait, in seconds.
        refuse_s: Who would wait longer, by the pace of the last batches, is refused at once, in
            seconds.
        gather_s: Longest that a batch which is not full waits for more, in seconds.
        join_s: Requests that come so soon after a batch has begun set out at once, before its rows
            that are on their way, in seconds.
    """

    batch: int
    queue: int
    wait_s: float
    refuse_s: float = math.inf
    gather_s: float = 0.0
    join_s: float = 0.0


@dataclass(frozen=True, eq=False)  # requests are compared by identity
class _Waiting:
    request: RawRequest
    reply: asyncio.Future[Reply]
    since_s: float
    allowed_s: float


class Watch(Protocol):
    """Watches whether batches end."""

    def begin(self) -> None:
        """A batch begins."""

    def end(self) -> None:
        """A batch ends."""


class Batcher:
    """The queue of one model; it lives in one event loop.

    Args:
        service: Answers the batches.
        limits: Of the queue.
        turns: When a batch may run.
        idle: Work that the service put off until its replies were sent.
        watch: Called when a batch begins and ends.
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
        self._pace = Pace(limits.batch)
        self._gathering: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    async def answer(self, request: RawRequest) -> Reply:
        """Answer one request; a full queue refuses it at once.

        One that is cancelled, or whose own deadline passes, while it waits is not run.
        """
        try:
            allowed_s = time_allowed(request.headers)
            if allowed_s <= 0.0:
                raise deadline_exceeded(allowed_s)
            self._require_room()
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

    def _require_room(self) -> None:
        waiting, limits = len(self._queue), self._limits
        if waiting < limits.queue and not self._pace.may_exceed(limits.refuse_s, waiting):
            return
        wait_s = self._pace.wait_s(waiting)
        if waiting >= limits.queue or wait_s > limits.refuse_s:
            raise InputError(
                "overloaded",
                f"{waiting} requests wait already, for about {wait_s:.2g} s; ask again later, or "
                "less often",
            )

    def _expire(self, one: _Waiting) -> None:
        if self._leaves(one):
            error = deadline_exceeded(one.allowed_s)
            one.reply.set_result(self._service.turn_away(one.request, error))

    def _leaves(self, one: _Waiting) -> bool:
        """Remove a request from the queue; whether it was still there."""
        try:
            # The thread of a batch takes from the same queue: this is one step of the interpreter.
            self._queue.remove(one)
        except ValueError:
            return False
        if self._gathering is not None and not self._queue:
            self._gathering.cancel()  # later requests fill a batch of their own
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

    def is_full(self) -> bool:
        """Whether as many wait as fit into a batch."""
        return len(self._queue) >= self._limits.batch

    def begin(self) -> Iterator[Todo]:
        """The next batch, stage by stage; each may be run anywhere."""
        if self._gathering is not None:
            self._gathering.cancel()
        self._watch.begin()
        self._idle.begin(self._loop)
        self._pace.begin(perf_counter())
        return self._steps()

    def end(self) -> None:
        """The batch has ended."""
        self._watch.end()
        if not self._queue:
            self._pace.rest(perf_counter())
        self._idle.end(self._loop)

    def turn_away(self, request: RawRequest, error: InputError) -> Reply:
        """Refuse a request without reading its rows, and count it."""
        return self._service.turn_away(request, error)

    def _steps(self) -> Iterator[Todo]:
        begun_s = perf_counter()
        # All that left the queue are answered, whatever fails; those that fit set out.
        left: list[_Waiting] = []
        taken: list[_Waiting] = []
        late: list[tuple[_Waiting, Reply]] = []

        def take() -> list[RawRequest]:
            some = self._pop()
            left.extend(some)
            fit = self._in_time(some, late)
            taken.extend(fit)
            return [one.request for one in fit]

        def more() -> list[RawRequest]:
            joins = self._queue and perf_counter() - begun_s < self._limits.join_s
            return take() if joins else []

        try:
            first = take()
            for answers in self._service.answers(first, more) if first else ():
                ready = [(taken[place], reply) for place, reply in answers]
                yield partial(_send, [*late, *ready])
                late.clear()
        except Exception:  # an internal error must not block the model
            logger.exception("a batch of %d requests failed", len(left))
            failed = [(one, self._service.fail(one.request)) for one in left]
            yield partial(_send, [*late, *failed])
        else:
            if late:
                yield partial(_send, late)

    def _pop(self) -> list[_Waiting]:
        """Take waiting requests out of the queue, as many as fit."""
        taken: list[_Waiting] = []
        with contextlib.suppress(IndexError):  # it is empty; the loop also removes cancelled ones
            while len(taken) < self._limits.batch:
                taken.append(self._queue.popleft())
        return taken

    def _in_time(
        self, taken: Sequence[_Waiting], late: list[tuple[_Waiting, Reply]]
    ) -> list[_Waiting]:
        """Those that did not wait too long; the others are refused."""
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
        self._pace.take(len(kept))  # the others cost nothing
        return kept


def _send(answers: Sequence[tuple[_Waiting, Reply]]) -> None:
    for one, reply in answers:
        if not one.reply.done():  # its client may have disconnected
            one.reply.set_result(reply)
