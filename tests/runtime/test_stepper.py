"""Stepping: every row runs as deep as its limits ask, whatever its signals and distances are."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from cutting import run_one_file, same_limits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from skipserve.graph.assemble import ANSWER, DISTANCE, SIGNAL
from skipserve.graph.memory import open_model
from skipserve.graph.one_file import one_file
from skipserve.graph.policy import Parts
from skipserve.routing.exits import Exit, Guard, Layout
from skipserve.routing.reading import cuts_of
from skipserve.runtime.pieces import OnnxPiece, Padded
from skipserve.runtime.rows import Rows
from skipserve.runtime.stepper import Cut, Stepper
from skipserve.runtime.wave import Limits

ROWS, CUTS, DEPTH = 6, 3, 5
BLOCKS, LEAVES = (0, 2, 3), (False, True, True)  # the first cut only guards
DECIDES = (2, 3)
value = helper.make_tensor_value_info


def stage(i: int, last: bool) -> onnx.ModelProto:
    """A stage that adds 1 to the answer, and reads what is told to it: signal and distance."""
    width = 2 * CUTS + 1  # signals, distances, answer
    before, behind = ("told" if i == 0 else f"stream{i}"), f"stream{i + 1}"
    one = np.zeros(width, np.float32)
    one[-1] = 1
    nodes = [helper.make_node("Add", [before, "one"], ["out" if last else behind])]
    outputs = [value("out" if last else behind, TensorProto.FLOAT, [None, width])]
    constants = [helper.make_tensor("one", TensorProto.FLOAT, [width], one)]
    if not last:
        found = {SIGNAL: (i, None), DISTANCE: (CUTS + i, None), ANSWER: (-1, None)}
        if not LEAVES[i]:
            found = {DISTANCE: found[DISTANCE]}
        for name, (column, _) in found.items():
            shape = [1] if name == ANSWER else []
            constants.append(helper.make_tensor(f"at/{name}", TensorProto.INT64, shape, [column]))
            if name == ANSWER:  # as wide as the last: only the end of it is looked at
                nodes.append(helper.make_node("Identity", [behind], [name]))
            else:
                nodes.append(helper.make_node("Gather", [behind, f"at/{name}"], [name], axis=1))
            rank = [None, None] if name == ANSWER else [None]
            outputs.append(value(name, TensorProto.FLOAT, rank))
    inputs = [value(before, TensorProto.FLOAT, ["batch", width])]
    graph = helper.make_graph(nodes, f"stage{i}", inputs, outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def exits():
    none = np.zeros((1, 1), np.float32)
    return [
        Exit(blocks, Layout("vector", (1,)), Guard(none[0], none), None, "norm", leaves=leaves)
        for blocks, leaves in zip(BLOCKS, LEAVES, strict=True)
    ]


def make():
    models = [stage(i, i == CUTS) for i in range(CUTS + 1)]
    plain = stage(0, True)
    one = one_file(Parts(plain, models, exits(), DEPTH, 2 * CUTS + 1))
    pieces = [OnnxPiece(open_model(model)) for model in models]
    return pieces, Stepper(pieces, cuts_of(exits()), DEPTH), OnnxPiece(open_model(one))


PIECES, STEPPER, ONE_FILE = make()


def told(signals, distances):
    """Rows that will say this; the answer counts the stages that ran."""
    zeros = np.zeros((len(signals), 1))
    return {"told": np.concatenate([signals, distances, zeros], axis=1, dtype=np.float32)}


def expected(signal, distance, threshold, limit):
    """One row, as its description says."""
    inside = True
    for i in range(CUTS):
        inside = inside and (limit == np.inf or bool(distance[i] <= limit))
        at = DECIDES.index(BLOCKS[i]) if LEAVES[i] else None
        if at is not None and inside and np.isfinite(signal[i]) and signal[i] >= threshold[at]:
            return BLOCKS[i], not inside, i + 1
    return DEPTH, not inside, CUTS + 1


LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_subnormal)
numbers = st.sampled_from(
    [np.nan, np.inf, -np.inf, LARGEST, -LARGEST, SMALLEST, -0.0, 0.0, 1.0, 2.0]
)
numbers |= st.floats(width=32)
tables = st.tuples(
    arrays(np.float32, (ROWS, CUTS), elements=numbers),
    arrays(np.float32, (ROWS, CUTS), elements=numbers),
    arrays(np.float32, (ROWS, len(DECIDES)), elements=numbers),
    arrays(np.float32, (ROWS,), elements=numbers),
)


@settings(max_examples=200)
@given(tables)
def test_a_row_leaves_only_where_it_was_inside_and_its_signal_reaches_the_threshold(table):
    signals, distances, thresholds, guard = table
    with np.errstate(invalid="ignore"):
        limits = Limits(thresholds, guard)
        got = STEPPER.run(Rows(told(signals, distances)), limits)
        answer, depth, held = run_one_file(ONE_FILE, told(signals, distances), limits)
        for i in range(ROWS):
            ran, out, stages = expected(signals[i], distances[i], thresholds[i], guard[i])
            assert (got.depth_run[i], got.held_back[i]) == (ran, out)
            assert (depth[i], held[i]) == (ran, out)
            assert got.answers[i, -1] == answer[i, -1] == stages
            reached = [blocks <= ran for blocks in DECIDES]
            shown = np.where(reached, signals[i, 1:], np.nan)
            np.testing.assert_array_equal(got.signals[i], shown)


@settings(max_examples=50)
@given(tables, tables)
def test_a_row_does_not_see_its_neighbours(table, other):
    with np.errstate(invalid="ignore"):
        whole = [np.concatenate(pair) for pair in zip(table, other, strict=True)]
        alone = STEPPER.run(Rows(told(*table[:2])), Limits(*table[2:]))
        beside = STEPPER.run(Rows(told(*whole[:2])), Limits(*whole[2:]))
    for name in ("answers", "depth_run", "held_back", "signals"):
        np.testing.assert_array_equal(getattr(beside, name)[:ROWS], getattr(alone, name))


@given(tables)
def test_with_the_router_off_every_block_runs(table):
    with np.errstate(invalid="ignore"):
        got = STEPPER.run(Rows(told(*table[:2])), same_limits(ROWS, [np.inf, np.inf]))
    assert got.depth_run.tolist() == [DEPTH] * ROWS
    assert not got.held_back.any()
    assert (got.answers[:, -1] == CUTS + 1).all()


def test_reading_shows_every_exit_of_rows_that_run_everything():
    rng = np.random.default_rng(0)
    signals, distances = rng.random((2, ROWS, CUTS), np.float32)
    read = STEPPER.read(Rows(told(signals, distances)))
    np.testing.assert_array_equal(read.signals, signals[:, 1:])
    np.testing.assert_array_equal(read.distances, distances)
    assert read.answers[:, :, -1].tolist() == [[2, 3, CUTS + 1]] * ROWS


def test_cuts_are_numbered_where_rows_leave():
    assert STEPPER.decisions == 2
    exits = [Exit(b, Layout("vector", (1,)), Guard(*2 * [np.zeros(1)]), None, "norm", leaves=leaf)
             for b, leaf in zip(BLOCKS, LEAVES, strict=True)]  # fmt: skip
    assert cuts_of(exits) == [Cut(0, None), Cut(2, 0), Cut(3, 1)]


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
    cuts = [Cut(0, None), Cut(2, 0), Cut(3, 1)]
    padded = Stepper([Padded(piece) for piece in counted], cuts, DEPTH)
    rows = Rows(told(*rng.random((2, count, CUTS), np.float32)))
    limits = same_limits(count, [0.5, 0.5], 0.9)
    got, plain = padded.run(rows, limits), STEPPER.run(rows, limits)
    for name in ("answers", "depth_run", "held_back", "signals"):
        np.testing.assert_array_equal(getattr(got, name), getattr(plain, name))
    sizes = {size for piece in counted for size in piece.sizes}
    assert sizes <= {1, 2, 4, 8, 16}
    assert max(sizes) == 1 << (count - 1).bit_length()
