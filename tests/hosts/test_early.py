"""Early replies: a reply leaves with its last row, and later requests overtake deep rows."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from small_project import REORDERED

import skipserve
from skipserve.artifacts.serving import ServingConfig
from skipserve.protocols.messages import RawRequest, Reply
from skipserve.runtime.engine import Engine
from skipserve.service.batcher import Batcher, QueueLimits
from skipserve.service.deferred import DeferredWork
from skipserve.service.service import More, Replies, Service
from skipserve.service.turns import LONG_S, Turns
from skipserve.training.recipes import Recipe

Row = NDArray[np.float32]
RISK = 0.05


@pytest.fixture(scope="module")
def routed(routed_project: tuple[Path, list[str]]) -> Engine:
    return skipserve.open(routed_project[0] / "artifacts" / "small", provider="cpu")


@pytest.fixture(scope="module")
def service(routed: Engine) -> Service:
    return Service(routed, ServingConfig(risk=RISK, batch_size=64, evidence=0))


def ask(rows: object) -> RawRequest:
    body = json.dumps({"inputs": np.asarray(rows).tolist()}).encode()
    return RawRequest(body, {"content-type": "application/json"})


@pytest.fixture(scope="module")
def by_depth(routed: Engine, recipe: Recipe) -> dict[int, Row]:
    """Rows by how many blocks they run; some are shallow, some run all."""
    rows = recipe.draw("test").inputs[:512].numpy()
    ran = routed.predict(rows, RISK).depth_run
    found = {depth: rows[ran == depth] for depth in np.unique(ran).tolist()}
    assert len(found) > 1 and max(found) == routed.manifest.depth
    return found


@pytest.fixture(scope="module")
def pair(by_depth: dict[int, Row]) -> tuple[Row, Row]:
    """A row that leaves first, and one that runs everything."""
    return by_depth[min(by_depth)][0], by_depth[max(by_depth)][0]


def replies(steps: Iterator[Replies]) -> list[Replies]:
    """What leaves, step by step, without the steps behind which nothing does."""
    return [some for some in steps if some]


def places(answers: list[tuple[int, Reply]]) -> list[int]:
    return [place for place, _ in answers]


def test_a_reply_leaves_before_its_neighbours_are_done(
    service: Service, pair: tuple[Row, Row]
) -> None:
    shallow, deep = pair
    answers = replies(service.answers([ask([deep]), ask([shallow]), ask([deep]), ask([shallow])]))
    assert places(answers[0]) == [1, 3]
    assert sorted(place for some in answers[1:] for place in places(some)) == [0, 2]


def test_a_request_is_answered_with_its_last_row(
    service: Service, pair: tuple[Row, Row], routed: Engine
) -> None:
    shallow, deep = pair
    mixed = np.stack([shallow, deep, shallow])
    answers = replies(service.answers([ask(mixed), ask([shallow])]))
    assert [places(some) for some in answers] == [[1], [0]]
    told = json.loads(answers[1][0][1].body)["outputs"]
    expected = routed.predict(mixed, RISK)
    assert [one["depth_run"] for one in told] == expected.depth_run.tolist()
    for one, probabilities in zip(told, expected.answers, strict=True):
        np.testing.assert_allclose(one["probabilities"], probabilities, atol=REORDERED)


def test_a_refusal_waits_for_no_row(service: Service, pair: tuple[Row, Row]) -> None:
    bad = RawRequest(b"{}", {"content-type": "application/json"})
    answers = replies(service.answers([ask([pair[1]]), bad]))
    assert places(answers[0]) == [1]
    assert answers[0][0][1].status == 400


def test_who_joins_overtakes_deep_rows(service: Service, pair: tuple[Row, Row]) -> None:
    shallow, deep = pair
    joins = [[], [ask([shallow])]]
    answers = replies(service.answers([ask([deep])], lambda: joins.pop() if joins else []))
    assert [places(some) for some in answers] == [[1], [0]]


class Ends:
    """Counts batches that ended."""

    count = 0

    def begin(self) -> None:
        """One begins."""

    def end(self) -> None:
        self.count += 1


class Interrupted(Service):
    """Its first batch is slow, so that others run in a thread; in those a request arrives."""

    batcher: Batcher
    loop: asyncio.AbstractEventLoop
    arrives: RawRequest
    batches = 0
    late: Future[Reply] | None = None

    def answers(self, requests: Sequence[RawRequest], more: More = tuple) -> Iterator[Replies]:
        self.batches += 1
        if self.batches == 1:
            time.sleep(10 * LONG_S)

        def interrupted() -> Sequence[RawRequest]:
            if self.batches == 2 and self.late is None:
                self.late = asyncio.run_coroutine_threadsafe(
                    self.batcher.answer(self.arrives), self.loop
                )
                while not self.batcher.waits():
                    time.sleep(1e-3)
            return more()

        return super().answers(requests, interrupted)


@pytest.mark.parametrize(("join_s", "batches"), [(60.0, 2), (0.0, 3)])
def test_requests_join_a_batch_only_where_they_may(
    routed: Engine, pair: tuple[Row, Row], join_s: float, batches: int
) -> None:
    async def use() -> Interrupted:
        loop, later = asyncio.get_running_loop(), DeferredWork()
        turns = Turns(loop)
        service = Interrupted(routed, ServingConfig(risk=RISK, batch_size=4, evidence=0), later)
        limits = QueueLimits(batch=4, queue=100, wait_s=60.0, join_s=join_s)
        ends = Ends()
        service.batcher = Batcher(service, limits, turns, later, ends)
        service.loop, service.arrives = loop, ask([pair[0]])
        for row in (pair[0], pair[1]):
            assert (await service.batcher.answer(ask([row]))).status == 200
            while not ends.count:  # the slow one
                await asyncio.sleep(0)
        assert service.late is not None
        assert (await asyncio.wrap_future(service.late)).status == 200
        turns.close()
        return service

    assert asyncio.run(use()).batches == batches
