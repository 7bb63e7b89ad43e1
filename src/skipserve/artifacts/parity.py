"""Parity: do the files compute what they were made from, and do all forms decide alike?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.manifest import DecisionParity, Format, Parity, Precision
from skipserve.errors import ParityError
from skipserve.routing.stopping import first_stop, within
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.runtime.wave import FinishedRows, Limits, RowResults, gathered
from skipserve.tasks import Task

# Largest absolute difference of a probability, or of another number in units of the largest answer
# that is more than 1. FP32 leaves room for reordered sums; FP16 has
# 11 bits, and a logit of size 10 is known to 0.005, a quarter of which reaches a probability. INT8
# is not held to a difference: what it changes is counted and published.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1.0}
LARGEST_FP16 = 65_504.0
# Signals nearer to a threshold than this, relative to it, are ties. FP16 streams carry 11 bits.
TIE_BANDS: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 2e-2}
FEWEST_EQUAL: dict[Precision, float] = {"fp32": 1.0, "fp16": 0.99, "int8": 0.99}
# Rows that are run one by one too.
SINGLE = 8
# Rows that run together: a transformer's take megabytes each, in every stage.
TOGETHER = 32

Full = Callable[[Rows], NDArray[np.float32]]
Run = Callable[[Rows, Limits], RowResults]


@dataclass(frozen=True)
class Expected:
    """What files are compared with.

    Attributes:
        rows: Real rows, and others.
        answers: Of the source for them [N, width].
        task: What an answer is.
        largest_activation: Largest absolute value inside the network on them.
    """

    rows: Rows
    answers: NDArray[np.float64]
    task: Task
    largest_activation: float


def parts_of(rows: Rows) -> Iterator[Rows]:
    """Rows, so many at a time as run together."""
    for start in range(0, len(rows), TOGETHER):
        yield rows[start : start + TOGETHER]


def _run_all(run: Run, rows: Rows, limits: Limits) -> RowResults:
    left = []
    for start in range(0, len(rows), TOGETHER):
        some = slice(start, start + TOGETHER)
        names = np.arange(len(rows))[some]
        left.append(FinishedRows(names, run(rows[some], limits[some])))
    return gathered(left)


def check_parity(
    full: Full, expected: Expected, format: Format, precision: Precision, name: str
) -> Parity:
    """Compare full-depth answers with those of the source, in one batch and row by row.

    Raises:
        ParityError: If a difference exceeds the tolerance of the precision, if a value is not
            finite, if a row's answer depends on its neighbours, or if FP16 cannot hold the
            network's activations.
    """
    if precision == "fp16" and expected.largest_activation > LARGEST_FP16:
        raise ParityError(
            f"{name}: an activation reaches {expected.largest_activation:.3g}, FP16 ends at "
            f"{LARGEST_FP16:g}; leave 'fp16' out of [export] precisions, or train with a norm"
        )
    rows = expected.rows
    got = np.concatenate([full(part) for part in parts_of(rows)])
    single = np.concatenate([full(rows[i : i + 1]) for i in range(min(SINGLE, len(rows)))])
    apart = float(np.abs(single - got[: len(single)]).max())
    unit = max(1.0, float(np.abs(expected.answers).max()))
    tolerance = TOLERANCES[precision] * unit
    alone = TOLERANCES["fp32"] * unit if precision == "int8" else tolerance
    if not apart <= alone:  # also true of NaN
        raise ParityError(
            f"{name}: a row alone and the same row in a batch differ by {apart:.3g}, allowed are "
            f"{alone:g}: its answer depends on its neighbours, so it cannot be routed"
        )
    largest = max(apart, float(np.abs(got - expected.answers).max()))
    if not largest <= tolerance:
        raise ParityError(
            f"{name}: an answer differs by {largest:.3g} from the source, allowed are "
            f"{tolerance:g}; the artifact was not written"
        )
    differs = ~expected.task.agree(got, expected.answers)
    return Parity(
        format=format,
        precision=precision,
        tolerance=tolerance,
        largest_difference=largest,
        rows=len(rows),
        disagreement=float(differs.mean()),
    )


class Decisions:
    """What every form of a router must decide on some rows, at thresholds across its signals.

    Args:
        rows: Real rows [N].
        readings: What the stages read off them.
        blocks: Blocks run at each decision, and at full depth.
        leaves: Which cuts are decisions.
        guarded: Whether the guards are on.
    """

    def __init__(
        self,
        rows: Rows,
        readings: ExitReadings,
        blocks: NDArray[np.int64],
        leaves: NDArray[np.bool_],
        guarded: bool,
    ) -> None:
        self._rows = rows
        signals, count = readings.signals, len(rows)
        decisions = np.arange(signals.shape[1])
        low, high = signals.min(axis=0), np.quantile(signals, 0.95, axis=0)
        place = (1 + np.arange(count)[:, None] // len(decisions) % 3) / 4
        # Each row is first asked at a decision of its own: else few would get to the last.
        first = np.arange(count)[:, None] % len(decisions)
        thresholds = np.where(decisions < first, np.inf, low + place * (high - low))
        farthest = np.maximum.accumulate(readings.distances, axis=1)
        limit = float(np.quantile(farthest[:, -1], 0.9)) if guarded else np.inf
        self._limits = Limits(
            thresholds.astype(np.float32), np.full(count, limit, dtype=np.float32)
        )
        inside = within(farthest, limit)
        where = first_stop(signals, self._limits.thresholds, inside[:, leaves])
        self._depth = blocks[where]
        # A row that leaves was inside up to there; one that runs everything passed every cut.
        self._held = (where == len(decisions)) & ~inside[:, -1]
        # Of decisions that a row never gets to, nothing is near anything.
        self._reached = decisions <= where[:, None]
        self._signals, self._farthest = signals, farthest

    def check(self, run: Run, precision: Precision, name: str) -> DecisionParity:
        """Compare decisions, rows of every depth in one batch.

        Raises:
            ParityError: If more rows differ than the precision explains.
        """
        band = TIE_BANDS[precision]
        thresholds, limit = self._limits.thresholds, self._limits.guard[:, None]
        with np.errstate(invalid="ignore"):
            near = np.abs(self._signals - thresholds) <= band * np.abs(thresholds)
            near &= np.isfinite(thresholds) & self._reached
            close = np.abs(self._farthest - limit) <= band * limit
        clear = ~(near.any(axis=1) | (close & np.isfinite(limit)).any(axis=1))
        got = _run_all(run, self._rows, self._limits)
        same = (got.depth_run == self._depth) & (got.held_back == self._held)
        equal = float(same[clear].mean()) if clear.any() else 1.0
        if equal < FEWEST_EQUAL[precision]:
            raise ParityError(
                f"{name}: only {equal:.2%} of {clear.sum()} rows outside the tie band run as deep "
                f"as the stages run them, expected {FEWEST_EQUAL[precision]:.0%}"
            )
        return DecisionParity(tie_band=band, rows=int(clear.sum()), equal=equal)
