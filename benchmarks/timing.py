"""Times of several things, measured in turn, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

K = TypeVar("K")
Clock = Callable[[], float]
# A round repeats each thing until it takes as long: short ones would drown in the clock.
ROUND_S = 0.02


def interleaved(
    work: Mapping[K, Callable[[], Any]], rounds: int, clock: Clock = perf_counter
) -> dict[K, list[float]]:
    """Seconds of each in every round, after one that warms up.

    Args:
        work: Each is called without arguments.
        rounds: How many.
        clock: ``time.thread_time`` counts the CPU time of this thread: what runs in it alone can be
            compared on a machine with other work.
    """
    repeats = {}
    for name, run in work.items():
        run()
        start = clock()
        run()
        repeats[name] = max(1, int(ROUND_S / max(clock() - start, 1e-6)))
    times: dict[K, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            start = clock()
            for _ in range(repeats[name]):
                run()
            times[name].append((clock() - start) / repeats[name])
    return times


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of neighbouring rounds."""
    return median(a / b for a, b in zip(above, below, strict=True))
