"""A network of five stages whose signals and distances are written in its rows."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from skipserve.graph.assemble import ANSWER, DISTANCE, SIGNAL
from skipserve.graph.memory import open_model
from skipserve.graph.one_file import one_file
from skipserve.graph.policy import Parts
from skipserve.routing.exits import Exit, Guard, Layout
from skipserve.routing.reading import cuts_of
from skipserve.runtime.pieces import OnnxPiece
from skipserve.runtime.stepper import Stepper

ROWS, CUTS, DEPTH = 6, 4, 5
BLOCKS, LEAVES = (0, 1, 2, 3), (False, False, True, True)  # the first two cuts only guard
DECIDES = (2, 3)
value = helper.make_tensor_value_info


def stage(i: int, last: bool) -> onnx.ModelProto:
    """A stage that adds 1 to the answer, and reads signal and distance off its input."""
    width = 2 * CUTS + 1  # signals, distances, answer
    before, behind = ("readings" if i == 0 else f"stream{i}"), f"stream{i + 1}"
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


def rows_reading(signals, distances):
    """Rows whose exits read these numbers; the answer counts the stages that ran."""
    zeros = np.zeros((len(signals), 1))
    return {"readings": np.concatenate([signals, distances, zeros], axis=1, dtype=np.float32)}


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
