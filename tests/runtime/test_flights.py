"""Flights: rows may join at any time; each runs as if alone and leaves once."""

from __future__ import annotations

import numpy as np
import pytest
from examples import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from stepping import CUTS, DEPTH, PIECES, ROWS, STEPPER, exits, rows_reading, tables

from skipserve.routing.reading import cuts_of
from skipserve.runtime.flights import Failed, Flights
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Stepper
from skipserve.runtime.wave import FinishedRows, Limits, gathered

SOON, NEVER = np.float32([-np.inf] * 2), np.float32([np.finfo(np.float32).max] * 2)


def admitted(flights: Flights, table, first: int) -> None:
    flights.admit(
        Rows(rows_reading(*table[:2])), Limits(*table[2:]), np.arange(first, first + ROWS)
    )


def drained(flights: Flights) -> list[FinishedRows]:
    left = []
    while flights:
        gone = flights.step()
        if gone is not None:
            left.append(gone)
    return left


@settings(max_examples=examples(100))
@given(
    st.lists(tables, min_size=1, max_size=4), st.lists(st.integers(0, 5), min_size=4, max_size=4)
)
def test_every_row_is_run_as_if_alone_whenever_it_joins(joining, steps):
    flights = Flights(STEPPER.run, STEPPER, most=2 * ROWS)
    left = []
    with np.errstate(invalid="ignore"):
        for i, (table, count) in enumerate(zip(joining, steps, strict=False)):
            admitted(flights, table, i * ROWS)
            for _ in range(count):
                gone = flights.step() if flights else None
                if gone is not None:
                    left.append(gone)
        left += drained(flights)
        alone = [STEPPER.run(Rows(rows_reading(*one[:2])), Limits(*one[2:])) for one in joining]
    assert sorted(np.concatenate([one.rows for one in left])) == list(range(ROWS * len(joining)))
    got = gathered(left)
    for i, expected in enumerate(alone):
        mine = got[slice(i * ROWS, (i + 1) * ROWS)]
        for name in ("answers", "depth_run", "held_back"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(expected, name))


def rows(*thresholds):
    """Rows inside every guard, each with these thresholds."""
    inside = np.zeros((len(thresholds), CUTS), np.float32)
    limits = Limits(np.stack(thresholds), np.ones(len(thresholds), np.float32))
    return Rows(rows_reading(inside, inside)), limits, np.arange(len(thresholds))


def test_a_row_leaves_before_its_neighbours_are_done():
    flights = Flights(STEPPER.run, STEPPER, most=8)
    flights.admit(*rows(NEVER, SOON, NEVER, SOON))
    assert [one.rows.tolist() for one in drained(flights)] == [[1, 3], [0, 2]]


def test_who_joins_overtakes_and_is_caught_up_with():
    flights = Flights(STEPPER.run, STEPPER, most=8)
    deep, limits, _ = rows(NEVER)
    flights.admit(deep, limits, np.array([0]))
    for _ in range(3):
        flights.step()  # it waits before the fourth stage
    new, limits, _ = rows(SOON, NEVER)
    flights.admit(new, limits, np.array([1, 2]))
    left = drained(flights)
    assert [one.rows.tolist() for one in left] == [[1], [0, 2]]
    assert left[1].results.depth_run.tolist() == [DEPTH, DEPTH]


def test_more_rows_than_may_run_together_run_apart():
    flights = Flights(STEPPER.run, STEPPER, most=3)
    for i in range(2):
        some, limits, names = rows(NEVER, NEVER)
        flights.admit(some, limits, names + 2 * i)
    assert [one.rows.tolist() for one in drained(flights)] == [[0, 1], [2, 3]]


def test_rows_at_full_depth_run_the_plain_graph():
    ran = []

    def plain(some, limits):
        ran.append(len(some))
        return STEPPER.run(some, limits)

    flights = Flights(plain, STEPPER, most=8)
    flights.admit(*rows(SOON, np.float32([np.inf] * 2), SOON))
    assert [one.rows.tolist() for one in drained(flights)] == [[0, 2], [1]]
    assert ran == [1]


class Breaks:
    """A stage that cannot be run."""

    inputs, outputs = PIECES[3].inputs, PIECES[3].outputs

    def run(self, feeds):
        raise RuntimeError("bad allocation")


def test_a_stage_that_fails_loses_its_rows_and_no_others():
    pieces = [*PIECES[:3], Breaks(), *PIECES[4:]]
    flights = Flights(STEPPER.run, Stepper(pieces, cuts_of(exits()), DEPTH), most=8)
    flights.admit(*rows(NEVER, SOON))
    left = []
    with pytest.raises(Failed) as failed:
        while flights:
            left.append(flights.step())
    assert failed.value.rows.tolist() == [0]
    assert [one.rows.tolist() for one in left if one] == [[1]]
    assert not flights
