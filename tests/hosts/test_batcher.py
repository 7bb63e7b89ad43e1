"""The queue of one model: batches of what came in, bounds, and faults that end no turn."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest

from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.engine import Engine
from skipserve.service.batcher import Batcher, DeferredWork, QueueLimits
from skipserve.service.service import Answers, More, Service
from skipserve.service.turns import Turns

T = TypeVar("T")
ROW = RawRequest(b'{"inputs": [[0.5, 0.5]]}', {"content-type": "application/json"})
SERVING = ServingConfig(metrics=False)
WIDE = QueueLimits(batch=4, queue=100, wait_s=60.0)


@dataclass
class Watched:
    """Counts batches."""

    begun: int = 0
    ended: int = 0

    def begin(self) -> None:
        self.begun += 1

    def end(self) -> None:
        self.ended += 1


@dataclass
class Queue:
    """A batcher with all that it takes."""

    engine: Engine
    limits: QueueLimits = WIDE
    kind: type[Service] = Service
    watch: Watched = field(default_factory=Watched)

    def run(self, use: Callable[[Batcher], Awaitable[T]]) -> T:
        async def inside() -> T:
            later = DeferredWork()
            service = self.kind(self.engine, SERVING, later)
            turns = Turns(asyncio.get_running_loop())
            try:
                return await use(Batcher(service, self.limits, turns, later, self.watch))
            finally:
                turns.close()

        return asyncio.run(inside())


async def ask(batcher: Batcher, times: int) -> list[Reply]:
    return list(await asyncio.gather(*(batcher.answer(ROW) for _ in range(times))))


def codes(replies: Sequence[Reply]) -> list[object]:
    return [200 if one.status == 200 else json.loads(one.body)["error"]["code"] for one in replies]


def test_what_comes_together_is_answered_together(engine: Engine) -> None:
    queue = Queue(engine)
    assert codes(queue.run(lambda batcher: ask(batcher, 10))) == [200] * 10
    assert (queue.watch.begun, queue.watch.ended) == (3, 3)  # 4 + 4 + 2


def test_a_full_queue_is_said_at_once(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=1, queue=2, wait_s=60.0))
    replies = queue.run(lambda batcher: ask(batcher, 4))
    assert codes(replies) == [200, 200, "overloaded", "overloaded"]
    assert [one.status for one in replies] == [200, 200, 503, 503]


def test_who_waited_too_long_is_told_so(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=4, queue=100, wait_s=0.0))
    replies = queue.run(lambda batcher: ask(batcher, 2))
    assert codes(replies) == ["waited_too_long"] * 2
    assert (queue.watch.begun, queue.watch.ended) == (1, 1)


def test_a_batch_that_filled_up_leaves_no_empty_one_behind(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=4, queue=100, wait_s=60.0, gather_s=0.05))

    async def use(batcher: Batcher) -> list[Reply]:
        replies = await ask(batcher, 4)
        await asyncio.sleep(0.1)  # until the wait for more would have been over
        return replies

    assert codes(queue.run(use)) == [200] * 4
    assert queue.watch.begun == 1


def test_a_batch_that_is_not_full_waits_no_longer_than_it_may(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=4, queue=100, wait_s=60.0, gather_s=0.01))

    async def use(batcher: Batcher) -> list[Reply]:
        return [*await ask(batcher, 2), *await ask(batcher, 1)]

    assert codes(queue.run(use)) == [200] * 3
    assert queue.watch.begun == 2


class Faulty(Service):
    """Breaks at its first batch."""

    broken = False

    def answers(self, requests: Sequence[RawRequest], more: More = tuple) -> Iterator[Answers]:
        if not self.broken:
            self.broken = True
            raise RuntimeError("a fault of ours")
        return super().answers(requests, more)


def test_a_fault_costs_its_batch_and_no_other(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(engine, WIDE, Faulty)
    replies = queue.run(lambda batcher: ask(batcher, 6))
    assert codes(replies) == ["internal"] * 4 + [200] * 2
    assert "a fault of ours" in caplog.text
    assert (queue.watch.begun, queue.watch.ended) == (2, 2)
