"""Schedules: shapes of the rate over time, and arrivals drawn from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from skipserve.errors import ConfigError

ShapeName = Literal["steady", "step", "spike", "soak"]
Arrivals = Literal["poisson", "constant"]
STEPS = 4
SPIKE = 3.0
# Beyond this no client can send anyhow, and the schedule would not fit into memory.
MOST_ARRIVALS = 20_000_000


@dataclass(frozen=True)
class Segment:
    """A time at one rate."""

    duration_s: float
    rate: float


def shape(name: ShapeName, rate: float, duration_s: float) -> tuple[Segment, ...]:
    """The rate over time.

    ``steady`` and ``soak`` hold the rate (a soak is a steady run of an hour or more), ``step``
    climbs to it in four equal steps, ``spike`` trebles it for the middle tenth.

    Args:
        name: Of the shape.
        rate: Requests a second.
        duration_s: Of the whole, in seconds.

    Raises:
        ConfigError: If the name is unknown, or rate or duration is not a positive number.
    """
    if name not in get_args(ShapeName):
        raise ConfigError(f"unknown shape {name!r}; choose one of {', '.join(get_args(ShapeName))}")
    for what, value, unit in (("rate", rate, "requests/s"), ("duration", duration_s, "s")):
        if not (0 < value < float("inf")):
            raise ConfigError(f"{what} must be a positive number of {unit}, got {value:g}")
    if rate * duration_s > MOST_ARRIVALS:
        raise ConfigError(
            f"{rate:g} requests/s for {duration_s:g} s are more than {MOST_ARRIVALS:,} requests; "
            "lower the rate or the duration"
        )
    if name == "step":
        part = duration_s / STEPS
        return tuple(Segment(part, rate * (step + 1) / STEPS) for step in range(STEPS))
    if name == "spike":
        side = 0.45 * duration_s
        return (
            Segment(side, rate),
            Segment(duration_s - 2 * side, SPIKE * rate),
            Segment(side, rate),
        )
    return (Segment(duration_s, rate),)


def arrivals(
    segments: tuple[Segment, ...], kind: Arrivals, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Times at which requests are due, in seconds from the start, rising [N].

    A process of rate 1 is mapped through the inverse of the rate's integral, so a Poisson process
    stays one where the rate changes (Lewis and Shedler, 1979).

    Args:
        segments: The rate over time.
        kind: ``poisson`` (gaps exponential) or ``constant`` (gaps equal).
        rng: Draws the gaps.
    """
    ends_s = np.cumsum([0.0, *(one.duration_s for one in segments)])
    expected = np.cumsum([0.0, *(one.duration_s * one.rate for one in segments)])
    total = float(expected[-1])
    if kind == "constant":
        unit = np.arange(0.5, total)
    else:
        # Given their number, the points of a Poisson process are uniform.
        unit = np.sort(rng.uniform(0.0, total, rng.poisson(total)))
    due: NDArray[np.float64] = np.interp(unit, expected, ends_s)
    return due


def duration_of(segments: tuple[Segment, ...]) -> float:
    """Seconds from the first to the last."""
    return sum(one.duration_s for one in segments)
