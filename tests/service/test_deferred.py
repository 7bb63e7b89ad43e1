"""Work that waits until replies are sent: done once for several batches, and between two."""

from __future__ import annotations

import asyncio

import pytest

from skipserve.service.deferred import DeferredWork
from skipserve.telemetry.series import COUNTED_S


async def batch(later: DeferredWork, work: list[str], seconds: float = 0.0) -> None:
    later.begin(asyncio.get_running_loop())
    later.when_idle(lambda: work.append("done"))
    await asyncio.sleep(seconds)
    later.end(asyncio.get_running_loop())


def test_the_work_of_several_batches_is_done_at_once() -> None:
    async def run() -> None:
        later, done = DeferredWork(), list[str]()
        for _ in range(3):
            await batch(later, done)
        assert done == []
        await asyncio.sleep(3 * COUNTED_S)
        assert done == ["done"] * 3

    asyncio.run(run())


def test_it_is_not_done_while_a_batch_runs() -> None:
    """A batch may run in a thread, and what it counts is not there for two."""

    async def run() -> None:
        later, done = DeferredWork(), list[str]()
        await batch(later, done)
        running = asyncio.ensure_future(batch(later, done, 4 * COUNTED_S))
        await asyncio.sleep(2 * COUNTED_S)
        assert done == []
        await running
        await asyncio.sleep(0)
        assert done == ["done"] * 2

    asyncio.run(run())


def test_behind_a_long_batch_it_is_done_at_once() -> None:
    """Another would begin before it is due, and last as long."""

    async def run() -> None:
        later, done = DeferredWork(), list[str]()
        await batch(later, done, 2 * COUNTED_S)
        await asyncio.sleep(0)
        assert done == ["done"]

    asyncio.run(run())


def test_a_fault_in_it_is_logged_and_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    later, done = DeferredWork(), list[str]()
    later.when_idle(lambda: [][0])
    later.when_idle(lambda: done.append("done"))
    later.work()
    assert done == ["done"]
    assert "deferred work failed" in caplog.text
