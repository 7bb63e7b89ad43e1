"""The dispatcher: gives due requests to free users, and collects their measurements.

A user is a greenlet with a connection. The open loop does not wait for anybody: a request is due
when the schedule says, and what it waits for a free user is part of its latency.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from time import perf_counter, process_time

import numpy as np
from gevent.event import AsyncResult, Event

from skipserve.loadtest.answers import check
from skipserve.loadtest.pacer import pace
from skipserve.loadtest.payloads import Choice, Pool, body
from skipserve.loadtest.periods import Part, Period, PeriodResult
from skipserve.loadtest.schedule import Segment, arrivals
from skipserve.loadtest.tally import Tally


@dataclass(frozen=True)
class Request:
    """A request that is due.

    Attributes:
        due_s: On the clock of ``perf_counter``.
        slice: Of the period, for the tallies.
        choice: Place in the period's mix.
        first: Place of its first row in the pool.
    """

    due_s: float
    slice: int
    choice: int
    first: int


class Dispatcher:
    """Runs periods one at a time, with all users that ask for work.

    Args:
        pools: Rows and answers of every model in the mixes to come.
        timeout_s: A request that waited this long for a user is given up.
    """

    def __init__(self, pools: Sequence[Pool], timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.tallies: dict[tuple[int, int], Tally] = {}
        self.hold(pools)
        self._idle: list[AsyncResult[Request]] = []
        self._backlog: deque[Request] = deque()
        self._choices: list[Choice] = []
        self._rest = Event()
        self._stopping = Event()
        self._closed_until_s = 0.0

    def hold(self, pools: Sequence[Pool]) -> None:
        """Use these rows and answers from now on."""
        self._pools = {pool.model: pool for pool in pools}
        self._places = {pool.model: count() for pool in pools}

    # Called by users

    def take(self) -> tuple[Request, float]:
        """Wait for a due request; also returns when the user became free."""
        free_s = perf_counter()
        if free_s < self._closed_until_s and not self._stopping.is_set():
            return self._due(free_s), free_s
        if self._backlog:
            return self._backlog.popleft(), free_s
        # The user that came last goes first, so that few connections carry a low rate.
        waiter: AsyncResult[Request] = AsyncResult()
        self._idle.append(waiter)
        try:
            return waiter.get(), free_s
        except BaseException:  # Locust ends users while they sleep
            if waiter in self._idle:
                self._idle.remove(waiter)
            raise

    def content(self, request: Request) -> tuple[str, str, str]:
        """Path, body and name of a request."""
        choice = self._choices[request.choice]
        pool = self._pools[choice.model]
        return f"/predictions/{choice.model}", body(pool, choice, request.first), str(choice)

    def sent(self, request: Request, free_s: float, sent_s: float) -> None:
        """Record that a request was sent."""
        self._on_time += sent_s <= self._end_s
        self._tally(request).lag.record(sent_s - max(request.due_s, free_s))

    def give_up(self, request: Request, failure: str) -> None:
        """Record that a due request was never sent."""
        tally = self._tally(request)
        tally.corrected.record(self.timeout_s)
        tally.uncorrected.record(self.timeout_s)
        tally.failures[failure] += 1
        self._finish(tally)

    def lost(self, request: Request, failure: str, waited_s: float) -> None:
        """Record that a request got no reply."""
        tally = self._tally(request)
        tally.unanswered[self._choices[request.choice].model] += 1
        tally.failures[failure] += 1
        tally.corrected.record(max(self.timeout_s, waited_s))
        tally.uncorrected.record(max(self.timeout_s, waited_s))
        self._finish(tally)

    def replied(
        self,
        request: Request,
        status: int,
        content: bytes,
        timing: dict[str, float],
        sent_s: float,
        done_s: float,
    ) -> str:
        """Check a reply and count it; returns what was wrong with it, or nothing."""
        tally = self._tally(request)
        choice = self._choices[request.choice]
        pool = self._pools[choice.model]
        tally.statuses[f"{choice.model} {status}"] += 1
        corrected_s, uncorrected_s = done_s - request.due_s, done_s - sent_s
        if status != 200:
            failure = f"status {status}"
            tally.failures[failure] += 1
            corrected_s = max(corrected_s, self.timeout_s)
            uncorrected_s = max(uncorrected_s, self.timeout_s)
        else:
            finding = check(pool, choice, request.first, content)
            failure = finding.failure
            tally.count(finding, choice.rows, pool.depth)
            decode_s, inference_s = timing.get("decode", 0.0), timing.get("inference", 0.0)
            if timing:
                tally.decode.record(decode_s)
                tally.inference.record(inference_s)
                tally.queue.record(max(0.0, uncorrected_s - decode_s - inference_s))
        tally.corrected.record(corrected_s)
        tally.uncorrected.record(uncorrected_s)
        self._finish(tally)
        return failure

    # Called by the test

    def run(self, period: Period, part: int = 0, parts: int = 1) -> PeriodResult:
        """Run a period and wait for its last reply.

        Args:
            period: What to run.
            part: Which share of the requests is this client's, from 0.
            parts: Clients that share them.
        """
        self._lay_out(period, part, parts)
        cpu_s, start_s = process_time(), perf_counter()
        self._begin_s, self._end_s = start_s, start_s + period.duration_s
        if period.users is None:
            pace(self._schedule, self._begin_s, self._end_s, self._release, self._stopping)
        else:
            self._run_closed(period.users)
        ran_s = min(perf_counter() - start_s, period.duration_s)
        stopped = self._stopping.is_set()
        if stopped:
            self._released -= len(self._backlog)
            self._backlog.clear()
        while self._finished < self._released:
            self._rest.clear()
            self._rest.wait()
        return PeriodResult(
            parts=[Part(*key, tally.to_json()) for key, tally in self.tallies.items()],
            scheduled=self._released,
            on_time=self._on_time,
            exhausted=self._exhausted,
            ran_s=ran_s,
            wall_s=perf_counter() - start_s,
            cpu_s=process_time() - cpu_s,
            stopped=stopped,
        )

    def stop(self) -> None:
        """End the running period once all pending requests are answered."""
        self._stopping.set()

    def _lay_out(self, period: Period, part: int, parts: int) -> None:
        self._stopping.clear()
        self.tallies = {}
        self._choices = period.choices
        self._slice_s = period.slice_s
        self._released = self._finished = self._on_time = self._exhausted = 0
        rng = np.random.default_rng(period.seed)
        segments = tuple(Segment(*one) for one in period.segments)
        due = arrivals(segments, period.arrivals, rng) if period.users is None else np.empty(0)
        weights = np.array([choice.weight for choice in period.choices])
        # A closed loop draws choices from a table of a few thousand, which repeats.
        draws = max(len(due), 4096)
        self._mix = rng.choice(len(weights), draws, p=weights / weights.sum()).tolist()
        self._mix = self._mix[part::parts]
        self._schedule = due[part::parts].tolist()

    def _release(self) -> None:
        now = perf_counter() - self._begin_s
        while self._released < len(self._schedule) and self._schedule[self._released] <= now:
            request = self._due(self._begin_s + self._schedule[self._released])
            if self._idle:
                self._idle.pop().set(request)
            else:
                self._exhausted += 1
                self._backlog.append(request)

    def _run_closed(self, users: int) -> None:
        self._closed_until_s = self._end_s
        for _ in range(min(users, len(self._idle))):
            self._idle.pop().set(self._due(perf_counter()))
        self._stopping.wait(self._end_s - perf_counter())
        self._closed_until_s = 0.0

    def _due(self, due_s: float) -> Request:
        choice = self._mix[self._released % len(self._mix)]
        self._released += 1
        picked = self._choices[choice]
        places = self._places[picked.model]
        first = next(places) * picked.rows % len(self._pools[picked.model].rows)
        return Request(due_s, int((due_s - self._begin_s) / self._slice_s), choice, first)

    def _tally(self, request: Request) -> Tally:
        key = (request.slice, request.choice)
        if key not in self.tallies:
            self.tallies[key] = Tally()
        return self.tallies[key]

    def _finish(self, tally: Tally) -> None:
        tally.requests += 1
        self._finished += 1
        if self._finished >= self._released:
            self._rest.set()
