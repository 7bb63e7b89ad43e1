"""Rows of many requests on their way at once: they start when they come, and leave when they may.

    admit → stage 0 → … → stage n        rows that wait before the same stage run it together
    admit → the plain graph              rows at full depth, and files that decide inside

Each call of :meth:`Flights.step` runs one stage. Which one is a choice between latencies: rows that
are nearly done first, or new ones, most of which leave at once (docs/decisions/0039-early.md).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Left, Limits, Stepped, Wave, together


class Steps(Protocol):
    """A network that can be run stage by stage."""

    def begin(self, rows: Rows, limits: Limits, names: NDArray[np.int64]) -> Wave:
        """Rows before the first stage."""
        ...

    def step(self, wave: Wave, i: int) -> tuple[Left | None, Wave | None]:
        """Run stage ``i``: who leaves behind it, and who goes on."""
        ...


class Whole(Protocol):
    """A network that is run at once, as deep as the limits ask."""

    def run(self, rows: Rows, limits: Limits) -> Stepped:
        """Run B rows."""
        ...


@dataclass(frozen=True)
class _Waiting:
    wave: Wave
    since_s: float  # its first row was admitted


# Behind all stages: nothing takes longer than full depth.
_WHOLE = 1 << 30


class Failed(Exception):
    """A stage could not be run.

    Attributes:
        rows: That were in it [n].
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        super().__init__(f"{len(rows)} rows failed")
        self.rows = rows


class Flights:
    """The rows of one model that are on their way.

    Args:
        whole: All files, run at once.
        steps: The stages; ``None`` where the files decide inside, or there is no router.
        most: Rows that a stage runs at once, at most.
        patience_s: Rows that came longer ago go first, in the order in which they came; else those
            before the earliest stage do. 0: no row waits for a later one.
    """

    def __init__(self, whole: Whole, steps: Steps | None, most: int, patience_s: float) -> None:
        self._whole = whole
        self._steps = steps
        self._most = most
        self._patience_s = patience_s
        # By stage that they wait before.
        self._lanes: dict[int, deque[_Waiting]] = {}
        self.rows = 0

    def admit(self, rows: Rows, limits: Limits, names: NDArray[np.int64]) -> None:
        """Take in rows.

        Args:
            rows: B rows.
            limits: Of each; a threshold that is +inf or NaN lets no row leave.
            names: What to call each [B]; no two that are on their way may be called alike.
        """
        self.rows += len(rows)
        now_s = perf_counter()
        routed = np.asarray((limits.thresholds < np.inf).any(axis=1))
        if self._steps is None or not routed.any():
            self._wait(_WHOLE, _plain(rows, limits, names), now_s)
        elif routed.all():
            self._wait(0, self._steps.begin(rows, limits, names), now_s)
        else:
            self._wait(0, self._steps.begin(rows[routed], limits[routed], names[routed]), now_s)
            others = ~routed
            self._wait(_WHOLE, _plain(rows[others], limits[others], names[others]), now_s)

    def hurries(self) -> bool:
        """Whether rows are on their way for so long that they go before new ones."""
        if not self.rows:
            return False
        before_s = perf_counter() - self._patience_s
        return any(lane[0].since_s <= before_s for lane in self._lanes.values())

    def step(self) -> Left | None:
        """Run one stage on rows that wait before it: those that left.

        Raises:
            Failed: If it could not be run; its rows are gone.
        """
        lane = self._next()
        taken = self._take(lane)
        wave = taken.wave
        try:
            left, going = self._run(lane, wave)
        except Exception as error:
            self.rows -= len(wave)
            raise Failed(wave.rows) from error
        if going is not None:
            self._wait(lane + 1, going, taken.since_s)
        if left is not None:
            self.rows -= len(left.rows)
        return left

    def _next(self) -> int:
        before_s = perf_counter() - self._patience_s
        oldest = min(self._lanes, key=lambda lane: self._lanes[lane][0].since_s)
        return oldest if self._lanes[oldest][0].since_s <= before_s else min(self._lanes)

    def _take(self, lane: int) -> _Waiting:
        """As many rows as may run together, from the front of a lane."""
        queue = self._lanes[lane]
        first = queue.popleft()
        waves = [first.wave]
        count, shapes = len(waves[0]), waves[0].shapes if queue else None
        while queue and queue[0].wave.shapes == shapes:
            if count + len(queue[0].wave) > self._most:
                break
            waves.append(queue.popleft().wave)
            count += len(waves[-1])
        if not queue:
            del self._lanes[lane]
        return _Waiting(together(waves), first.since_s)

    def _run(self, lane: int, wave: Wave) -> tuple[Left | None, Wave | None]:
        if lane != _WHOLE:
            assert self._steps is not None
            return self._steps.step(wave, lane)
        return Left(wave.rows, self._whole.run(Rows(wave.tensors), wave.limits)), None

    def _wait(self, lane: int, wave: Wave, since_s: float) -> None:
        self._lanes.setdefault(lane, deque()).append(_Waiting(wave, since_s))


def _plain(rows: Rows, limits: Limits, names: NDArray[np.int64]) -> Wave:
    """Rows before the whole network, which reads no signal on the way."""
    signals = np.full(limits.thresholds.shape, np.nan, dtype=np.float32)
    return Wave(names, rows.tensors, np.ones(len(rows), dtype=bool), limits, signals)
