"""The plan of a load test: its load, its periods, and whether it can be judged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skipserve.errors import ConfigError
from skipserve.loadtest.payloads import Choice, with_router_off
from skipserve.loadtest.percentiles import samples_for
from skipserve.loadtest.periods import Period
from skipserve.loadtest.pools import Subject
from skipserve.loadtest.results import ArmName
from skipserve.loadtest.schedule import Arrivals, ShapeName, shape
from skipserve.loadtest.slo import Objective
from skipserve.loadtest.target import Target

# Long enough to settle, short enough that whatever slows the machine slows both arms.
SHORTEST_PERIOD_S, LONGEST_PERIOD_S = 1.0, 5.0
MOST_PERIODS = 60
# A tenth of the test within these. A JVM just started needs them, as busy as it can be; in a closed
# loop, as that leaves no queue behind on a service that cannot keep up.
LEAST_WARM_UP_S, MOST_WARM_UP_S = 2.0, 5.0
WARM_UP_USERS = 16


@dataclass(frozen=True)
class Plan:
    """The plan of a load test.

    Attributes:
        choices: The mix.
        duration_s: As asked; the baseline takes as long again.
        rate: Requests a second, at the height of the shape for ``steady``, ``step``, ``soak``.
        users: Instead of a rate, for a closed loop.
        shape: Of the rate over time.
        arrivals: How requests are spaced.
        baseline: Whether to alternate with the same mix at full depth.
        connections: Requests that can be on their way at once.
        timeout_s: After which a request is given up.
        seed: Of arrivals and mix.
    """

    choices: list[Choice]
    duration_s: float
    rate: float = 0.0
    users: int | None = None
    shape: ShapeName = "steady"
    arrivals: Arrivals = "poisson"
    baseline: bool = True
    connections: int = 512
    timeout_s: float = 10.0
    seed: int = 0

    def segments(self) -> list[list[tuple[float, float]]]:
        """The rate over time, cut into periods.

        Raises:
            ConfigError: If rate, duration or shape is wrong.
        """
        whole = shape(self.shape, self.rate if self.users is None else 1.0, self.duration_s)
        if self.shape in ("step", "spike"):
            return [[(one.duration_s, one.rate) for one in whole]]
        period_s = min(max(self.duration_s / 10, SHORTEST_PERIOD_S), LONGEST_PERIOD_S)
        count = max(1, min(round(self.duration_s / period_s), MOST_PERIODS))
        return [[(self.duration_s / count, whole[0].rate)] for _ in range(count)]

    def check(self, objective: Objective) -> None:
        """Refuse a plan that cannot be judged, before it runs.

        Raises:
            ConfigError: If the duration is too short for a percentile, or something is wrong.
        """
        expected = sum(s * rate for period in self.segments() for s, rate in period)
        for percent, _ in objective.percentiles if self.users is None else ():
            needed = samples_for(percent)
            # A Poisson count falls short of its mean half of the time.
            fewest = expected - 2 * math.sqrt(expected)
            if fewest < needed:
                come = f"are about {expected:.0f} requests"
                if expected >= needed:
                    come = f"may come to only {fewest:.0f} requests by chance"
                raise ConfigError(
                    f"{self.duration_s:g} s at {self.rate:g} requests/s {come}; p{percent:g} needs "
                    f"{needed}: run at least "
                    f"{math.ceil(self.duration_s * (needed + 3 * math.sqrt(needed)) / expected)} s"
                )

    def warm_up(self, choices: list[Choice]) -> Period:
        """A period whose latencies are discarded."""
        seconds = min(max(self.duration_s / 10, LEAST_WARM_UP_S), MOST_WARM_UP_S)
        users = self.users or min(WARM_UP_USERS, self.connections)
        return Period(choices, [(seconds, 1.0)], self.arrivals, self.seed, users=users)

    @property
    def slice_s(self) -> float:
        """Length of the slices of a period, in seconds."""
        period_s = sum(duration_s for duration_s, _ in self.segments()[0])
        return min(period_s, max(1.0, period_s / MOST_PERIODS))


def mixes_of(plan: Plan, subjects: Sequence[Subject]) -> dict[ArmName, list[Choice]]:
    """The mix as asked and, where it differs, the same mix at full depth."""
    off = with_router_off(plan.choices)
    if plan.baseline and off != plan.choices and any(one.has_router for one in subjects):
        return {"asked": plan.choices, "baseline": off}
    return {"asked": plan.choices}


def as_text(plan: Plan, objective: Objective, target: Target) -> dict[str, Any]:
    """The plan as text for a report."""
    load = f"{plan.users} users" if plan.users is not None else f"{plan.rate:g} requests/s"
    return {
        "objective": str(objective),
        "load": load,
        "loop": "open" if plan.users is None else "closed",
        "arrivals": plan.arrivals if plan.users is None else "when the last reply is there",
        "shape": plan.shape,
        "duration_s": plan.duration_s,
        "mix": [f"{choice} ({choice.weight:g})" for choice in plan.choices],
        "connections": plan.connections,
        "timeout_s": plan.timeout_s,
        "seed": plan.seed,
        "service": target.host,
    }
