"""The queue of one model: batches, limits, and faults that do not block the model."""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

import pytest

from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.engine import Engine
from skipserve.service import batcher as batcher_module
from skipserve.service.batcher import Batcher, QueueLimits
from skipserve.service.deferred import DeferredWork
from skipserve.service.service import More, Replies, Service
from skipserve.service.turns import Todo, Turns

T = TypeVar("T")
Trace = Callable[[FrameType, str, Any], Any]
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

    def answers(self, requests: Sequence[RawRequest], more: More = tuple) -> Iterator[Replies]:
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


class Uncounted(Service):
    """Breaks when it is told how long the requests of its first batch waited."""

    broken = False

    def waited(self, seconds: Sequence[float]) -> None:
        if not self.broken:
            self.broken = True
            raise RuntimeError("a fault of ours")
        super().waited(seconds)


def test_who_left_the_queue_is_answered_whatever_fails(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    queue = Queue(engine, WIDE, Uncounted)
    replies = queue.run(lambda batcher: asyncio.wait_for(ask(batcher, 6), 60))
    assert codes(replies) == ["internal"] * 4 + [200] * 2
    assert "a batch of 4 requests failed" in caplog.text


class Scripted(Turns):
    """Leaves it to the test when a batch runs, and where."""

    def want(self, source: object) -> None:
        """Nothing runs by itself."""


def cancelled_at(engine: Engine, place: int, requests: int = 3) -> tuple[bool, list[object]]:
    """Cancel all requests but the first at one moment of a batch that a thread begins.

    Args:
        place: Of the moment: steps of the interpreter in the thread, inside the batcher.

    Returns:
        Whether the thread came so far, and what became of the requests: codes, or ``None`` for
        those that were cancelled.
    """
    came = False

    async def inside() -> list[object]:
        loop, later = asyncio.get_running_loop(), DeferredWork()
        service = Service(engine, SERVING, later)
        batcher = Batcher(service, WIDE, Scripted(loop), later, Watched())
        asked = [asyncio.ensure_future(batcher.answer(ROW)) for _ in range(requests)]
        await asyncio.sleep(0)

        async def cancel() -> None:
            for one in asked[1:]:
                one.cancel()
            await asyncio.wait(asked[1:])

        def run(steps: Iterator[Todo]) -> None:
            left = place

            def trace(frame: FrameType, event: str, _: object) -> Trace | None:
                nonlocal left, came
                if frame.f_code.co_filename != batcher_module.__file__:
                    return None
                frame.f_trace_opcodes = True
                if event == "opcode":
                    if left == 0:
                        came = True
                        asyncio.run_coroutine_threadsafe(cancel(), loop).result(60)
                    left -= 1
                return trace

            sys.settrace(trace)
            try:
                for todo in steps:
                    loop.call_soon_threadsafe(todo)
            finally:
                sys.settrace(None)

        await loop.run_in_executor(None, run, batcher.begin())
        batcher.end()
        done = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        return [codes([one])[0] if isinstance(one, Reply) else None for one in done]

    found = asyncio.run(inside())
    return came, found


def test_who_leaves_while_a_batch_is_taken_keeps_nobody_from_an_answer(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop removes cancelled requests while the thread of a batch takes them."""
    place, came, ends = 0, True, set()
    while came:
        came, found = cancelled_at(engine, place)
        assert found[0] == 200, f"at step {place}"
        assert set(found[1:]) <= {200, None}
        ends.add(tuple(found))
        place += 1
    assert {(200, None, None), (200, 200, 200)} <= ends
    assert not caplog.records


class Slow(Service):
    """Takes a twentieth of a second for a batch."""

    def answers(self, requests: Sequence[RawRequest], more: More = tuple) -> Iterator[Replies]:
        time.sleep(0.05)
        return super().answers(requests, more)


def test_who_would_wait_too_long_is_told_so_at_once(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=1, queue=100, wait_s=60.0, refuse_s=0.12), Slow)

    async def use(batcher: Batcher) -> tuple[list[Reply], list[Reply]]:
        await ask(batcher, 1)  # the pace is known from here on
        return await ask(batcher, 20), await ask(batcher, 1)

    replies, after = queue.run(use)
    # One begins, two or three wait; on a machine that dawdles fewer.
    found = codes(replies)
    assert found[0] == 200 and found[-1] == "overloaded"
    assert 1 <= found.count(200) <= 4
    assert found == sorted(found, key=lambda code: code != 200)
    assert codes(after) == [200]


class Held(Slow):
    """Its second batch ends when it is let go."""

    batches = 0
    let_go = threading.Event()

    def answers(self, requests: Sequence[RawRequest], more: More = tuple) -> Iterator[Replies]:
        self.batches += 1
        if self.batches == 2:
            assert self.let_go.wait(60)
        return super().answers(requests, more)


def test_a_refusal_waits_for_no_batch(engine: Engine) -> None:
    queue = Queue(engine, QueueLimits(batch=1, queue=100, wait_s=60.0, refuse_s=0.01), Held)

    async def use(batcher: Batcher) -> list[Reply]:
        await ask(batcher, 1)  # it is known to be slow from here on
        running = asyncio.ensure_future(ask(batcher, 1))
        while queue.watch.begun < 2 or batcher.waits():
            await asyncio.sleep(0)
        waiting = asyncio.ensure_future(ask(batcher, 1))
        await asyncio.sleep(0)
        refused = await ask(batcher, 3)
        assert not running.done()
        Held.let_go.set()
        return [*refused, *await running, *await waiting]

    assert codes(queue.run(use)) == ["overloaded"] * 3 + [200] * 2


def test_one_slow_batch_does_not_shut_the_door(engine: Engine) -> None:
    """Where nobody waits everybody may come in, however long it takes."""
    queue = Queue(engine, QueueLimits(batch=1, queue=100, wait_s=60.0, refuse_s=0.001), Slow)

    async def use(batcher: Batcher) -> list[Reply]:
        return [(await ask(batcher, 1))[0] for _ in range(3)]

    assert codes(queue.run(use)) == [200] * 3
