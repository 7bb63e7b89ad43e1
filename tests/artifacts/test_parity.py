"""Parity: whatever a file cannot answer, and whatever never leaves, is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from skipserve.artifacts.parity import Decisions, Expected, check_parity
from skipserve.errors import ParityError
from skipserve.routing.stopping import first_stop, within
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import ExitReadings
from skipserve.runtime.wave import Limits, RowResults
from skipserve.tasks import Classify, Regress, Task

COUNT, DEPTH = 100, 4
BLOCKS, LEAVES = np.array([1, 2, DEPTH]), np.array([True, True])


def compare(
    answers: NDArray[np.float64], source: NDArray[np.float64], task: Task
) -> tuple[float, float | None]:
    """Parity of a file that gives these answers: largest difference, and disagreement."""
    rows = Rows({"x": np.arange(len(answers), dtype=np.float32)[:, None]})

    def full(some: Rows) -> NDArray[np.float32]:
        return answers[some.tensors["x"][:, 0].astype(int)].astype(np.float32)

    found = check_parity(full, Expected(rows, source, task, 1.0), "onnx", "fp32", "small")
    return found.largest_difference, found.disagreement


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("task", [Classify(classes=3), Regress(values=3, tolerance=0.1)])
def test_an_answer_that_is_finite_at_one_side_alone_is_a_difference(
    task: Task, value: float
) -> None:
    source = np.random.default_rng(0).dirichlet(np.ones(3), COUNT)
    broken = source.copy()
    broken[20:60, 1] = value  # behind the rows that are run one by one
    with pytest.raises(ParityError, match="row 20 is not finite here, and that of the source is"):
        compare(broken, source, task)
    with pytest.raises(ParityError, match="row 20 is finite here, and that of the source is not"):
        compare(source, broken, task)


def test_rows_that_overflow_on_both_sides_are_no_difference() -> None:
    source = np.random.default_rng(0).dirichlet(np.ones(3), COUNT)
    source[[2, 30], 1] = np.nan
    served = source.copy()
    served[40, 0] += 5e-5
    largest, disagreement = compare(served, source, Classify(classes=3))
    assert largest == pytest.approx(5e-5, rel=0.01)
    assert disagreement == 0.0


def readings(signals: NDArray[np.float64]) -> ExitReadings:
    answers = np.zeros((len(signals), len(BLOCKS), 3), np.float32)
    distances = np.full((len(signals), 2), 0.5, np.float32)
    distances[:, 1] += np.linspace(0, 0.1, len(signals))
    return ExitReadings(answers, signals.astype(np.float32), distances)


def results(depth: NDArray[np.int64], held: NDArray[np.bool_]) -> RowResults:
    none = np.zeros((len(depth), 0), np.float32)
    return RowResults(np.zeros((len(depth), 3), np.float32), depth, held, none)


def never(rows: Rows, limits: Limits) -> RowResults:
    """A file that lets no row leave."""
    return results(np.full(len(rows), DEPTH), np.zeros(len(rows), bool))


class Right:
    """A file that decides by the readings."""

    def __init__(self, read: ExitReadings) -> None:
        self.read = read

    def __call__(self, rows: Rows, limits: Limits) -> RowResults:
        these = rows.tensors["x"][:, 0].astype(int)
        farthest = np.maximum.accumulate(self.read.distances[these], axis=1)
        inside = within(farthest, limits.guard[:, None])
        where = first_stop(self.read.signals[these], limits.thresholds, inside)
        return results(BLOCKS[where], (where == 2) & ~inside[:, -1])


def decisions(read: ExitReadings) -> Decisions:
    rows = Rows({"x": np.arange(len(read.signals), dtype=np.float32)[:, None]})
    return Decisions(rows, read, BLOCKS, LEAVES, guarded=True)


@pytest.mark.parametrize("overflowing", [0, 1, 30])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_overflow_do_not_hide_that_nothing_leaves(overflowing: int, value: float) -> None:
    signals = np.random.default_rng(0).random((COUNT, 2))
    signals[:overflowing] = value
    read = readings(signals)
    read.distances[:overflowing] = np.nan
    with pytest.raises(ParityError, match="outside the tie band run as deep"):
        decisions(read).check(never, "fp32", "small")
    found = decisions(read).check(Right(read), "fp32", "small")
    assert found.equal == 1.0
    assert found.rows > COUNT * 0.9


def test_where_no_row_can_be_compared_nothing_is_proved() -> None:
    read = readings(np.full((COUNT, 2), 0.5))
    with pytest.raises(ParityError, match=r"every one of 100 rows .*no decision can be compared"):
        decisions(read).check(Right(read), "fp32", "small")
