"""Shadow runs: a share of the routed rows is run a second time, to see whether skipping agrees.

A routed row is run again at full depth, its reply long on its way. While skipping is switched off
it is the other way round: the router runs as the shadow of the full-depth answer, which is how
fresh evidence comes in. No labels are needed.
"""

from __future__ import annotations

import logging
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic, perf_counter

import numpy as np
from numpy.typing import NDArray

from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Prediction, Setting
from skipserve.runtime.rows import Rows
from skipserve.runtime.wave import Limits
from skipserve.service.batches import Batches
from skipserve.telemetry.metrics import ModelMetrics

QUEUE_ROWS = 256
# A worker that is never idle makes room for one run, once a row has waited so long: the alarm must
# not go blind when there is most traffic.
PATIENCE_S = 0.5
# A row that waited longer says little about now, and memory is better used.
WAIT_S = 2.0
# Weight of the newest run in the estimate of what a row costs.
NEWEST = 0.2

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answered:
    """Rows of one batch with what they were answered.

    Attributes:
        rows: As they ran.
        prediction: For them.
        wanted: What each asked of the router, as certified [B].
        off: The router was on for none of them, as its switch is thrown.
    """

    rows: Rows
    prediction: Prediction
    wanted: Sequence[Setting]
    off: bool


@dataclass(frozen=True)
class _Drawn:
    since_s: float
    risk: float
    row: Rows
    answer: NDArray[np.float32]
    against: Setting
    agrees: bool  # known without a run


class Shadow:
    """Draws rows and runs them again while the worker would only wait.

    Whether a row is drawn depends on nothing but chance, and whether it is dropped on nothing but
    time: what is counted stands for all rows.

    Args:
        engine: The open model.
        metrics: Told the outcomes.
        share: Of the routed rows, 0 to 1.
        budget_s: Longest that one run may take, in seconds.
        message_waits: Whether the next request is there; nothing is begun then, unless a row has
            waited for :data:`PATIENCE_S`.
    """

    def __init__(
        self,
        engine: Engine,
        metrics: ModelMetrics,
        share: float,
        budget_s: float,
        message_waits: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._batches = Batches(engine.manifest.signature)
        self._metrics = metrics
        self._share = share if engine.certified() else 0.0
        self._budget_s = budget_s
        self._message_waits = message_waits
        self._random = np.random.default_rng()
        self._queue: deque[_Drawn] = deque()
        self._row_s = self._measure() if self._share else 0.0
        if self._row_s > budget_s:
            logger.warning(
                "%s gets no shadow runs: one row takes %.3g ms at full depth, shadow_budget_ms "
                "is %.3g; raise it, or nobody will notice when skipping goes wrong",
                engine.manifest.name,
                self._row_s * 1e3,
                budget_s * 1e3,
            )

    def draw(self, answered: Answered) -> None:
        """Draw rows of a batch; those that the queue has no room for are dropped."""
        if not self._share:
            return
        for i in np.flatnonzero(self._random.random(len(answered.rows)) < self._share).tolist():
            self._take(answered, i)

    def work(self) -> None:
        """Run what was drawn, as much at once as the budget allows, until a request waits.

        One run is made in any case once a row has waited for :data:`PATIENCE_S`.
        """
        self._drop_old()
        if self._queue and self._queue[0].since_s < monotonic() - PATIENCE_S:
            self._run_some()
        while self._queue and not self._message_waits():
            self._run_some()

    def _take(self, answered: Answered, i: int) -> None:
        wanted, prediction = answered.wanted[i], answered.prediction
        # What is tested is a rate of disagreement; accuracy lost bounds none.
        if wanted.risk is None or wanted.measure != "disagreement":
            return
        if not prediction.finite[i]:
            return
        if len(self._queue) >= QUEUE_ROWS:
            self._metrics.shadow_dropped(1)
            return
        # All blocks were run for it: full depth is what it was answered with.
        full = not answered.off and prediction.depth_run[i] == self._engine.manifest.depth
        against = wanted if answered.off else self._engine.off
        answer = prediction.answers[i]
        drawn = _Drawn(
            monotonic(), wanted.risk, answered.rows[i : i + 1], answer, against, bool(full)
        )
        self._queue.append(drawn)

    def _drop_old(self) -> None:
        before = monotonic() - WAIT_S
        dropped = 0
        while self._queue and self._queue[0].since_s < before:
            self._queue.popleft()
            dropped += 1
        if dropped:
            self._metrics.shadow_dropped(dropped)

    def _run_some(self) -> None:
        most = int(self._budget_s / self._row_s)
        some = [self._queue.popleft() for _ in range(min(max(most, 1), len(self._queue)))]
        if not most:
            self._metrics.shadow_dropped(len(some))
            self._row_s *= 1 - NEWEST  # tried again some time: it may have been a slow moment
            return
        try:
            disagrees = self._disagree(some)
        except Exception:
            self._metrics.shadow_dropped(len(some))
            raise
        rows = Tally(drawn.risk for drawn in some)
        differ = Tally(d.risk for d, differs in zip(some, disagrees, strict=True) if differs)
        for risk, count in rows.items():
            self._metrics.shadow(risk, count, differ[risk])

    def _disagree(self, some: Sequence[_Drawn]) -> list[bool]:
        runs = [drawn for drawn in some if not drawn.agrees]
        if not runs:
            return [False] * len(some)
        start = perf_counter()
        disagrees: dict[int, bool] = {}
        for group in self._batches.joined([drawn.row for drawn in runs]):
            members = [runs[i] for i in group.members]
            again = self._engine.run(group.rows, _limits(members))
            # No answer is not the same answer.
            served = np.stack([drawn.answer for drawn in members])
            agrees = self._engine.manifest.task.agree(served, again.answers)
            differs = ~again.finite | ~agrees
            disagrees.update(zip(group.members, differs.tolist(), strict=True))
        if runs[0].against is self._engine.off:  # the router's runs are shorter
            row_s = (perf_counter() - start) / len(runs)
            self._row_s += NEWEST * (row_s - self._row_s)
        found = (disagrees[i] for i in range(len(runs)))
        return [not drawn.agrees and next(found) for drawn in some]

    def _measure(self) -> float:
        row = self._engine.example()
        times = []
        for _ in range(3):
            start = perf_counter()
            self._engine.run(row)
            times.append(perf_counter() - start)
        return min(times)


def _limits(drawn: Sequence[_Drawn]) -> Limits:
    return Limits(
        np.stack([one.against.thresholds for one in drawn]),
        np.array([one.against.guard_limit for one in drawn], dtype=np.float32),
    )
