"""Rows of many requests on their way at once: each leaves when it may, later ones join earlier.

    admit → stage 0 → … → stage n        rows before the same stage run it together
    admit → the plain graph              rows at full depth, and files that decide inside

The rows before the earliest stage go first: most of them leave soon, and the others gather before
the deeper stages (docs/decisions/0039-early-replies.md).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import FinishedRows, Limits, RowResults, Wave, together


class Steps(Protocol):
    """A network that can be run stage by stage."""

    def begin(self, rows: Rows, limits: Limits, names: NDArray[np.int64]) -> Wave:
        """Rows before the first stage."""
        ...

    def step(self, wave: Wave, i: int) -> tuple[FinishedRows | None, Wave | None]:
        """Run stage ``i``: who leaves behind it, and who goes on."""
        ...


# Behind all stages: nothing takes longer than full depth.
_WHOLE = 1 << 30


class Failed(Exception):
    """A stage could not be run; why is its cause.

    Attributes:
        rows: That were in it [n], by name.
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        super().__init__(f"{len(rows)} rows failed")
        self.rows = rows


class Flights:
    """The rows of one model that are on their way.

    Args:
        whole: Runs rows at once, as deep as their limits ask.
        steps: The stages; ``None`` where the files decide inside, or there is no router.
        most: Rows that came apart are run together up to so many.
    """

    def __init__(
        self, whole: Callable[[Rows, Limits], RowResults], steps: Steps | None, most: int
    ) -> None:
        self._whole = whole
        self._steps = steps
        self._most = most
        self._lanes: dict[int, deque[Wave]] = {}  # by the stage that they are before

    def __bool__(self) -> bool:
        """Whether rows are on their way."""
        return bool(self._lanes)

    def admit(self, rows: Rows, limits: Limits, names: NDArray[np.int64]) -> None:
        """Take in rows.

        Args:
            rows: B rows.
            limits: Of each.
            names: What to call each [B]; no two that are on their way may be called alike.
        """
        routed = limits.routed
        if self._steps is None or not routed.any():
            self._wait(_WHOLE, _plain(rows, limits, names))
        elif routed.all():
            self._wait(0, self._steps.begin(rows, limits, names))
        else:
            self._wait(0, self._steps.begin(rows[routed], limits[routed], names[routed]))
            others = ~routed
            self._wait(_WHOLE, _plain(rows[others], limits[others], names[others]))

    def step(self) -> FinishedRows | None:
        """Run the earliest stage that rows are before: those that left behind it.

        Raises:
            Failed: If it could not be run; its rows are gone.
        """
        stage = min(self._lanes)
        wave = self._take(stage)
        try:
            left, going = self._run(stage, wave)
        except Exception as error:
            raise Failed(wave.rows) from error
        if going is not None:
            self._wait(stage + 1, going)
        return left

    def _take(self, stage: int) -> Wave:
        """As many rows as may run together, from the front of a lane."""
        lane = self._lanes[stage]
        waves = [lane.popleft()]
        count, shapes = len(waves[0]), waves[0].shapes if lane else None
        while lane and lane[0].shapes == shapes and count + len(lane[0]) <= self._most:
            waves.append(lane.popleft())
            count += len(waves[-1])
        if not lane:
            del self._lanes[stage]
        return together(waves)

    def _run(self, stage: int, wave: Wave) -> tuple[FinishedRows | None, Wave | None]:
        if stage != _WHOLE:
            assert self._steps is not None
            return self._steps.step(wave, stage)
        return FinishedRows(wave.rows, self._whole(Rows(wave.tensors), wave.limits)), None

    def _wait(self, stage: int, wave: Wave) -> None:
        self._lanes.setdefault(stage, deque()).append(wave)


def _plain(rows: Rows, limits: Limits, names: NDArray[np.int64]) -> Wave:
    """Rows before the whole network, which reads no signal on the way."""
    signals = np.full(limits.thresholds.shape, np.nan, dtype=np.float32)
    return Wave(names, rows.tensors, np.ones(len(rows), dtype=bool), limits, signals)
