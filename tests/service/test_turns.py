"""Turns: a batch waits a moment for requests that are arriving, and for no others."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from skipserve.service.arrivals import SOON_S, Arrivals
from skipserve.service.turns import Todo, Turns


class Source:
    """Batches of at most four of what was added to it."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.batches: list[int] = []

    def waits(self) -> bool:
        return self.waiting > 0

    def is_full(self) -> bool:
        return self.waiting >= 4

    def begin(self) -> Iterator[Todo]:
        taken = min(self.waiting, 4)
        self.waiting -= taken
        self.batches.append(taken)
        yield lambda: None

    def end(self) -> None:
        pass


def batches(arriving: int, waiting: int = 1, after: int = 1, age_s: float = 0.0) -> list[int]:
    """The sizes of the batches when so many requests are arriving.

    Args:
        arriving: Requests whose heads are here as the first batch is asked for.
        waiting: Requests that are complete by then.
        after: Rounds of the loop until each further one is complete.
        age_s: How long ago the newest head came.
    """

    async def run() -> list[int]:
        loop, arrivals, source = asyncio.get_running_loop(), Arrivals(), Source(waiting)
        for _ in range(arriving):
            arrivals.begin()
        arrivals._newest_s -= age_s
        turns = Turns(loop, arrivals)
        turns.want(source)
        for _ in range(arriving):
            for _ in range(after):
                await asyncio.sleep(0)
            arrivals.end()
            source.waiting += 1
            turns.want(source)
        while source.waits():
            await asyncio.sleep(0.001)
        turns.close()
        return source.batches

    return asyncio.run(run())


def test_a_batch_takes_those_along_that_are_arriving(monkeypatch: pytest.MonkeyPatch) -> None:
    # Long enough on a machine that does much else.
    monkeypatch.setattr("skipserve.service.arrivals.SOON_S", 60.0)
    monkeypatch.setattr("skipserve.service.turns.GATHER_S", 60.0)
    assert batches(arriving=0) == [1]
    assert batches(arriving=2) == [3]


def test_a_full_batch_waits_for_nobody() -> None:
    assert batches(arriving=1, waiting=4) == [4, 1]


def test_a_body_that_comes_slowly_keeps_nobody_waiting() -> None:
    assert batches(arriving=1, age_s=2 * SOON_S) == [1, 1]


def test_a_batch_waits_no_longer_than_it_may() -> None:
    # The heads of others come all the time, and this body does not.
    async def run() -> bool:
        loop, arrivals, source = asyncio.get_running_loop(), Arrivals(), Source(1)
        turns = Turns(loop, arrivals)
        arrivals.begin()
        turns.want(source)
        end = loop.time() + 10
        while source.waits() and loop.time() < end:
            arrivals.begin()
            await asyncio.sleep(0)
        turns.close()
        return source.waits()

    assert not asyncio.run(run())
