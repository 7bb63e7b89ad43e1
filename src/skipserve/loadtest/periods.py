"""Messages between the load test and its client process: setup, periods, results."""

from __future__ import annotations

from typing import Any

import msgspec

from skipserve.loadtest.payloads import Choice, Pool
from skipserve.loadtest.schedule import Arrivals


class Setup(msgspec.Struct, frozen=True):
    """The first message of the test.

    Attributes:
        host: Root of the service, such as ``http://127.0.0.1:8080``.
        pools: Rows and answers of every model in the mix.
        connections: Requests that can be on their way at once.
        timeout_s: After which a request is given up.
    """

    host: str
    pools: list[Pool]
    connections: int
    timeout_s: float


class Period(msgspec.Struct, frozen=True):
    """A period of load with one mix.

    Attributes:
        choices: The mix.
        segments: Seconds and requests per second, in turn.
        arrivals: How requests are spaced.
        seed: Of arrivals and mix.
        slice_s: Results are kept apart by this much time.
        users: For a closed loop, in which each user waits for the answer before it asks again;
            rates count for nothing then.
    """

    choices: list[Choice]
    segments: list[tuple[float, float]]
    arrivals: Arrivals = "poisson"
    seed: int = 0
    slice_s: float = 1.0
    users: int | None = None

    @property
    def duration_s(self) -> float:
        return sum(duration_s for duration_s, _ in self.segments)


class Part(msgspec.Struct, frozen=True):
    """Measurements of one slice of a period, for one choice of its mix.

    Attributes:
        slice: From 0.
        choice: Place in the period's mix.
        tally: As JSON.
    """

    slice: int
    choice: int
    tally: dict[str, Any]


class PeriodResult(msgspec.Struct, frozen=True):
    """The result of a period.

    Attributes:
        parts: The measurements.
        scheduled: Requests that were due.
        on_time: Of these, sent before the period's end.
        exhausted: Of these, due while every connection was waiting for the server.
        ran_s: Time of the period that was run; less than asked if it was stopped.
        wall_s: The same with the wait for the last replies.
        cpu_s: Processor time the client took in ``wall_s``.
        stopped: Whether it was stopped.
    """

    parts: list[Part]
    scheduled: int
    on_time: int
    exhausted: int
    ran_s: float
    wall_s: float
    cpu_s: float
    stopped: bool
