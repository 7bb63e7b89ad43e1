"""Stepping: every row runs as deep as its limits ask, for all signals and distances."""

from __future__ import annotations

import numpy as np
import pytest
from cutting import run_one_file, same_limits
from examples import examples
from hypothesis import given, settings
from stepping import (
    BLOCKS,
    CUTS,
    DECIDES,
    DEPTH,
    LEAVES,
    ONE_FILE,
    PIECES,
    ROWS,
    STEPPER,
    rows_reading,
    tables,
)

from skipserve.routing.exits import Exit, Guard, Layout
from skipserve.routing.reading import cuts_of
from skipserve.runtime.pieces import Padded
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Cut, Stepper
from skipserve.runtime.wave import Limits


def expected(signal, distance, threshold, limit):
    """One row, as its description says."""
    inside = True
    for i in range(CUTS):
        inside = inside and (limit == np.inf or bool(distance[i] <= limit))
        at = DECIDES.index(BLOCKS[i]) if LEAVES[i] else None
        if at is not None and inside and np.isfinite(signal[i]) and signal[i] >= threshold[at]:
            return BLOCKS[i], not inside, i + 1
    return DEPTH, not inside, CUTS + 1


@settings(max_examples=examples(200))
@given(tables)
def test_a_row_leaves_only_where_it_was_inside_and_its_signal_reaches_the_threshold(table):
    signals, distances, thresholds, guard = table
    with np.errstate(invalid="ignore"):
        limits = Limits(thresholds, guard)
        got = STEPPER.run(Rows(rows_reading(signals, distances)), limits)
        answer, depth, held = run_one_file(ONE_FILE, rows_reading(signals, distances), limits)
        for i in range(ROWS):
            ran, out, stages = expected(signals[i], distances[i], thresholds[i], guard[i])
            assert (got.depth_run[i], got.held_back[i]) == (ran, out)
            assert (depth[i], held[i]) == (ran, out)
            assert got.answers[i, -1] == answer[i, -1] == stages
            reached = [blocks <= ran for blocks in DECIDES]
            shown = np.where(reached, signals[i, LEAVES], np.nan)
            np.testing.assert_array_equal(got.signals[i], shown)


@settings(max_examples=examples(50))
@given(tables, tables)
def test_a_row_does_not_see_its_neighbours(table, other):
    with np.errstate(invalid="ignore"):
        whole = [np.concatenate(pair) for pair in zip(table, other, strict=True)]
        alone = STEPPER.run(Rows(rows_reading(*table[:2])), Limits(*table[2:]))
        beside = STEPPER.run(Rows(rows_reading(*whole[:2])), Limits(*whole[2:]))
        # A lone row is decided in numbers.
        rows = [[column[i : i + 1] for column in table] for i in range(ROWS)]
        lone = [STEPPER.run(Rows(rows_reading(*row[:2])), Limits(*row[2:])) for row in rows]
    for name in ("answers", "depth_run", "held_back", "signals"):
        together = getattr(alone, name)
        np.testing.assert_array_equal(getattr(beside, name)[:ROWS], together)
        np.testing.assert_array_equal(
            np.concatenate([getattr(one, name) for one in lone]), together
        )


@given(tables)
def test_with_the_router_off_every_block_runs(table):
    with np.errstate(invalid="ignore"):
        got = STEPPER.run(Rows(rows_reading(*table[:2])), same_limits(ROWS, [np.inf, np.inf]))
    assert got.depth_run.tolist() == [DEPTH] * ROWS
    assert not got.held_back.any()
    assert (got.answers[:, -1] == CUTS + 1).all()


def test_reading_shows_every_exit_of_rows_that_run_everything():
    rng = np.random.default_rng(0)
    signals, distances = rng.random((2, ROWS, CUTS), np.float32)
    read = STEPPER.read(Rows(rows_reading(signals, distances)))
    np.testing.assert_array_equal(read.signals, signals[:, LEAVES])
    np.testing.assert_array_equal(read.distances, distances)
    assert read.answers[:, :, -1].tolist() == [[3, 4, CUTS + 1]] * ROWS


def test_cuts_are_numbered_where_rows_leave():
    assert STEPPER.decisions == 2
    exits = [Exit(b, Layout("vector", (1,)), Guard(*2 * [np.zeros(1)]), None, "norm", leaves=leaf)
             for b, leaf in zip(BLOCKS, LEAVES, strict=True)]  # fmt: skip
    assert cuts_of(exits) == [Cut(0, None), Cut(1, None), Cut(2, 0), Cut(3, 1)]


# --- batches of a few sizes ---


class Counted:
    """A piece that remembers what batches it was given."""

    def __init__(self, piece):
        self.piece, self.sizes = piece, []
        self.inputs, self.outputs = piece.inputs, piece.outputs

    def run(self, feeds):
        self.sizes.append(len(next(iter(feeds.values()))))
        return self.piece.run(feeds)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 13])
def test_padding_takes_powers_of_two_and_changes_no_answer(count):
    rng = np.random.default_rng(count)
    counted = [Counted(piece) for piece in PIECES]
    cuts = [Cut(0, None), Cut(1, None), Cut(2, 0), Cut(3, 1)]
    padded = Stepper([Padded(piece) for piece in counted], cuts, DEPTH)
    rows = Rows(rows_reading(*rng.random((2, count, CUTS), np.float32)))
    limits = same_limits(count, [0.5, 0.5], 0.9)
    got, plain = padded.run(rows, limits), STEPPER.run(rows, limits)
    for name in ("answers", "depth_run", "held_back", "signals"):
        np.testing.assert_array_equal(getattr(got, name), getattr(plain, name))
    sizes = {size for piece in counted for size in piece.sizes}
    assert sizes <= {1, 2, 4, 8, 16}
    assert max(sizes) == 1 << (count - 1).bit_length()
