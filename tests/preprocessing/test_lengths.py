"""Rows of similar length run together, without common padding."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper
from signatures import spec

from skipserve.graph.known import known_counts
from skipserve.runtime.lengths import SPARE, by_length, trim
from skipserve.runtime.rows import Rows
from skipserve.signature import Signature

OUTPUTS = (spec("probabilities", "float32", 2),)
INPUTS = (spec("ids", "int64", "length"), spec("mask", "int64", "length"), spec("x", "float32", 3))
MASKED = Signature(inputs=INPUTS, outputs=OUTPUTS, mask="mask")


def rows_of(lengths: list[int], width: int) -> Rows:
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = mask * (np.arange(len(lengths))[:, None] + 1)
    return Rows({"ids": ids, "mask": mask, "x": np.arange(len(lengths) * 3.0).reshape(-1, 3)})


@given(st.lists(st.integers(1, 200), min_size=1, max_size=40), st.integers(0, 20))
def test_every_row_runs_once_with_all_its_positions_and_little_padding(
    lengths: list[int], spare: int
) -> None:
    rows = rows_of(lengths, max(lengths) + spare)
    seen: list[int] = []
    padding = []
    for places, part in by_length(rows, MASKED):
        mine = np.arange(len(rows))[places]
        seen += mine.tolist()
        longest = part.tensors["mask"].shape[1]
        assert longest == max(lengths[i] for i in mine)
        for name, tensor in part.tensors.items():
            whole = rows.tensors[name][mine]
            np.testing.assert_array_equal(tensor, whole[:, : tensor.shape[1]])
            assert tensor.flags.c_contiguous
        # No cut would save enough any more.
        ascending = np.sort([lengths[i] for i in mine])
        padding += [k * (ascending[-1] - ascending[k - 1]) for k in range(1, len(ascending))]
    assert sorted(seen) == list(range(len(lengths)))
    assert all(one < SPARE for one in padding)


def test_rows_that_differ_little_stay_together_and_others_do_not() -> None:
    parts = [places for places, _ in by_length(rows_of([10, 12, 11], 12), MASKED)]
    assert parts == [slice(None)]
    lengths = [100, 5, 100, 6]
    parts = [part.tolist() for part, _ in by_length(rows_of(lengths, 100), MASKED)]
    assert parts == [[1, 3], [0, 2]]


@pytest.mark.parametrize(
    "signature",
    [
        Signature(inputs=INPUTS, outputs=OUTPUTS),
        Signature(
            inputs=(spec("ids", "int64", 9), spec("mask", "int64", 9), INPUTS[2]),
            outputs=OUTPUTS,
            mask="mask",
        ),
    ],
    ids=["no mask", "fixed"],
)
def test_rows_stay_as_they_are_where_nothing_says_what_is_padding(signature: Signature) -> None:
    rows = rows_of([2, 9, 9], 9)
    ((places, same),) = by_length(rows, signature)
    assert places == slice(None) and same is rows
    assert trim(rows, signature) is rows


def test_a_row_that_is_all_padding_keeps_a_position() -> None:
    trimmed = trim(rows_of([0, 0], 7), MASKED)
    assert trimmed.tensors["ids"].shape == (2, 1)
    assert trimmed.tensors["x"].shape == (2, 3)


def test_a_graph_tells_how_many_tokens_it_knows() -> None:
    tables = [
        helper.make_tensor(name, TensorProto.FLOAT, (count, 2), [0.0] * count * 2)
        for name, count in (("words", 50), ("others", 40), ("table", 9))
    ]
    nodes = [
        helper.make_node("Cast", ["ids"], ["same"], to=TensorProto.INT64),
        helper.make_node("Gather", ["words", "same"], ["a"]),
        helper.make_node("Gather", ["others", "ids"], ["b"]),
        helper.make_node("Gather", ["table", "column"], ["c"], axis=1),
        helper.make_node("Gather", ["a", "types"], ["d"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "length"])
        for name in ("ids", "column", "types")
    ]
    graph = helper.make_graph(nodes, "g", inputs, [], tables)
    assert known_counts(helper.make_model(graph)) == {"ids": 40}
    assert known_counts(onnx.ModelProto()) == {}
