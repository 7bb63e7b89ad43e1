"""Parity: files compute what their source computes, and all forms decide alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.asked import Format, Precision
from skipserve.artifacts.manifest import DecisionParity, Parity
from skipserve.errors import ParityError
from skipserve.routing.stopping import first_stop, within
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.runtime.wave import FinishedRows, Limits, RowResults, gathered
from skipserve.tasks import Task, finite

# Largest absolute difference of a probability, or of another number in units of the largest answer
# that is more than 1. FP32 leaves room for reordered sums; FP16 has
# 11 bits, and a logit of size 10 is known to 0.005, a quarter of which reaches a probability. INT8
# is not held to a difference: what it changes is counted and published.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "fp16": 2e-2, "int8": 1.0}
LARGEST_FP16 = 65_504.0
# Signals within this relative distance of a threshold are ties; FP16 streams carry 11 bits.
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
    """Reference answers that files are compared with.

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
    """Slices of rows, one for each batch."""
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
    """Compare full-depth answers with the source, in one batch and row by row.

    Rows that overflow in the source have no answer, and shall have none here.

    Raises:
        ParityError: If a difference exceeds the tolerance of the precision, if an answer is finite
            here alone or there alone, if a row's answer depends on its neighbours, or if FP16
            cannot hold the network's activations.
    """
    if precision == "fp16" and expected.largest_activation > LARGEST_FP16:
        raise ParityError(
            f"{name}: an activation reaches {expected.largest_activation:.3g}, FP16 ends at "
            f"{LARGEST_FP16:g}; leave 'fp16' out of [export] precisions, or train with a norm"
        )
    rows = expected.rows
    got = np.concatenate([full(part) for part in parts_of(rows)])
    single = np.concatenate([full(rows[i : i + 1]) for i in range(min(SINGLE, len(rows)))])
    apart = _largest(single, got[: len(single)])
    shall = finite(expected.answers)
    unit = float(np.abs(expected.answers[shall]).max(initial=1.0))
    tolerance = TOLERANCES[precision] * unit
    alone = TOLERANCES["fp32"] * unit if precision == "int8" else tolerance
    if apart > alone:
        raise ParityError(
            f"{name}: a row alone and the same row in a batch differ by {apart:.3g}, allowed are "
            f"{alone:g}: its answer depends on its neighbours, so it cannot be routed"
        )
    has = finite(got)
    if (has != shall).any():
        row = int(np.argmax(has != shall))
        here, there = ("finite", "is not") if has[row] else ("not finite", "is")
        raise ParityError(
            f"{name}: the answer of row {row} is {here} here, and that of the source {there}; the "
            "artifact was not written"
        )
    largest = max(apart, _largest(got, expected.answers))
    if largest > tolerance:
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


def _largest(some: NDArray[np.floating], others: NDArray[np.floating]) -> float:
    """The largest difference of two sets of answers [N, width]; infinite if one alone is finite."""
    has, have = finite(some), finite(others)
    if (has != have).any():
        return np.inf
    return float(np.abs(some[has] - others[has]).max(initial=0.0))


class Decisions:
    """Decisions that every form of a router must make on some rows.

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
        low, high = np.transpose([_range(column) for column in signals.T])
        place = (1 + np.arange(count)[:, None] // len(decisions) % 3) / 4
        # Each row is first tested at a decision of its own, so that some reach the last.
        first = np.arange(count)[:, None] % len(decisions)
        thresholds = np.where(decisions < first, np.inf, low + place * (high - low))
        farthest = np.maximum.accumulate(readings.distances, axis=1)
        limit = np.inf
        if guarded and np.isfinite(farthest[:, -1]).any():
            limit = float(np.quantile(farthest[np.isfinite(farthest[:, -1]), -1], 0.9))
        self._limits = Limits(
            thresholds.astype(np.float32), np.full(count, limit, dtype=np.float32)
        )
        inside = within(farthest, limit)
        where = first_stop(signals, self._limits.thresholds, inside[:, leaves])
        self._depth = blocks[where]
        # A row that leaves was inside every guard before; one that runs all passes every cut.
        self._held = (where == len(decisions)) & ~inside[:, -1]
        # Decisions that a row does not reach cannot be ties.
        self._reached = decisions <= where[:, None]
        self._signals, self._farthest = signals, farthest

    def check(self, run: Run, precision: Precision, name: str) -> DecisionParity:
        """Compare decisions, rows of every depth in one batch.

        Raises:
            ParityError: If more rows differ than the precision explains, or none can be compared.
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
        if not clear.any():
            raise ParityError(
                f"{name}: every one of {len(clear)} rows has a signal within {band:g} of a "
                "threshold, so no decision can be compared; set another router.signal, or exits.at"
            )
        equal = float(same[clear].mean())
        if equal < FEWEST_EQUAL[precision]:
            raise ParityError(
                f"{name}: only {equal:.2%} of {clear.sum()} rows outside the tie band run as deep "
                f"as the stages run them, expected {FEWEST_EQUAL[precision]:.0%}"
            )
        return DecisionParity(tie_band=band, rows=int(clear.sum()), equal=equal)


def _range(signal: NDArray[np.float32]) -> tuple[float, float]:
    """The least of some signals [N] and their 95th percentile; those that overflowed do not count.

    A row without a finite signal never leaves.
    """
    known = signal[np.isfinite(signal)]
    return (float(known.min()), float(np.quantile(known, 0.95))) if len(known) else (0.0, 0.0)
