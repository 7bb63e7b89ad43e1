"""The routed network as one ONNX graph: rows that stop leave the batch, skipped work is not done.

Per decision: pool, signal, comparison with the row's threshold, ``Compress`` of the rows that go
on, and one ``If`` that holds the stage. Every row's newest pooled stream is kept in a [B, width]
tensor by ``ScatterND``; the shared head reads it once, at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from skipserve.artifacts.pieces import OPSET, GraphBuilder, export_module
from skipserve.routing.routed import RoutedNetwork

IR_VERSION = 10


@dataclass(frozen=True)
class Pieces:
    """The exported parts of a routed network; see :class:`RoutedNetwork` for what each does."""

    entry: onnx.ModelProto
    stages: Sequence[onnx.ModelProto]
    pool: onnx.ModelProto
    signals: Sequence[onnx.ModelProto]
    guard: onnx.ModelProto
    answer: onnx.ModelProto


@torch.no_grad()
def export_pieces(routed: RoutedNetwork, rows: Tensor) -> Pieces:
    """Export every piece on its own.

    Args:
        routed: In evaluation mode.
        rows: At least two raw rows [B, *inputs].
    """
    stream = routed.entry(rows)
    pooled = routed.pool(stream)
    return Pieces(
        entry=export_module(routed.entry, rows, "stream"),
        stages=[export_module(stage, stream, "stream") for stage in routed.stages],
        pool=export_module(routed.pool, stream, "pooled"),
        signals=[export_module(signal, pooled, "signal") for signal in routed.signals],
        guard=export_module(routed.guard, stream, "distance"),
        answer=export_module(routed.answer, pooled, "probabilities"),
    )


def assemble(pieces: Pieces, routed: RoutedNetwork) -> onnx.ModelProto:
    """Put the pieces into one graph.

    Inputs ``inputs`` [B, *inputs], ``thresholds`` [B, decisions], ``guard_limit`` [B]; outputs
    ``probabilities`` [B, classes], ``depth_run`` [B], ``held_back`` [B], ``signals`` [T]: those
    of all rows at the first decision, of the rows that got to the second, and so on.
    """
    graph = GraphBuilder()
    stream = graph.inline(pieces.entry, "inputs")
    distance = graph.inline(pieces.guard, stream)
    held = graph.op("Greater", distance, "guard_limit")
    infinity = graph.constant(np.array(np.inf, dtype=np.float32))
    column = graph.op("Unsqueeze", held, graph.integers(1))
    limits = graph.op("Where", column, infinity, "thresholds")
    limits = graph.op("Transpose", limits, perm=[1, 0])  # one row a decision
    router = _Exit if routed.policy == "exit" else _Skip
    pooled, depth, signals = router(graph, pieces, routed.depths).build(stream, limits)
    probabilities = graph.inline(pieces.answer, pooled)
    graph.nodes += [
        helper.make_node("Identity", [source], [name])
        for source, name in (
            (probabilities, "probabilities"),
            (depth, "depth_run"),
            (held, "held_back"),
            (signals, "signals"),
        )
    ]
    shape = [d.dim_value or d.dim_param for d in _shape(pieces.entry.graph.input[0])]
    classes = _shape(pieces.answer.graph.output[0])[-1].dim_value
    stages = len(pieces.stages)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        "routed",
        [
            value("inputs", TensorProto.FLOAT, ["batch", *shape[1:]]),
            value("thresholds", TensorProto.FLOAT, ["batch", stages]),
            value("guard_limit", TensorProto.FLOAT, ["batch"]),
        ],
        [
            value("probabilities", TensorProto.FLOAT, ["batch", classes]),
            value("depth_run", TensorProto.INT64, ["batch"]),
            value("held_back", TensorProto.BOOL, ["batch"]),
            value("signals", TensorProto.FLOAT, ["decisions_taken"]),
        ],
        graph.initializers,
    )
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(made, opset_imports=opsets, ir_version=IR_VERSION)


class _Policy:
    """What both policies are built from."""

    def __init__(self, graph: GraphBuilder, pieces: Pieces, depths: Sequence[int]) -> None:
        self._graph = graph
        self._pieces = pieces
        self._depths = depths


class _Exit(_Policy):
    """Rows that stop leave the batch for good."""

    def build(self, stream: str, limits: str) -> tuple[str, str, str]:
        graph, pieces = self._graph, self._pieces
        pooled = graph.inline(pieces.pool, stream)
        batch = graph.op("Shape", limits, start=1, end=2)
        rows = graph.op("NonZero", graph.op("ConstantOfShape", batch, value=_one()))
        rows = graph.op("Transpose", rows, perm=[1, 0])  # (B, 1): indices for GatherND
        out, left, signal = self._decide(graph, 0, pooled, stream, rows, limits)
        state, ran, signals = (out, left, pooled), [left], [signal]
        self._none = graph.constant(np.zeros(0, dtype=np.float32))
        last = len(pieces.stages) - 1
        for i in range(last + 1):
            some = graph.op("Cast", graph.op("Size", state[1]), to=TensorProto.BOOL)
            *made, signal = self._stage(i, some, state, limits, last)
            state = (made[0], made[1], made[2])
            ran.append(state[1])
            signals.append(signal)
        depth = _count_depth(graph, batch, ran[:-1], self._depths)
        return state[2], depth, graph.op("Concat", *signals[:-1], axis=0)

    def _stage(
        self, i: int, some: str, state: tuple[str, str, str], limits: str, last: int
    ) -> tuple[str, ...]:
        stream, rows, latest = state
        then, otherwise = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
        out = then.inline(self._pieces.stages[i], stream)
        pooled = then.inline(self._pieces.pool, out)
        kept = then.op("ScatterND", latest, rows, pooled)
        left, signal = rows, self._none
        if i < last:
            out, left, signal = self._decide(then, i + 1, pooled, out, rows, limits)
        return self._graph.ops(
            "If",
            [some],
            4,
            then_branch=then.branch(f"stage{i}", (out, left, kept, signal)),
            else_branch=otherwise.branch(f"stage{i}_none", (*state, self._none)),
        )

    def _decide(
        self, graph: GraphBuilder, i: int, pooled: str, stream: str, rows: str, limits: str
    ) -> tuple[str, str, str]:
        signal = graph.inline(self._pieces.signals[i], pooled)
        limit = graph.op("Gather", limits, graph.constant(np.array(i, dtype=np.int64)), axis=0)
        goes_on = graph.op("Less", signal, graph.op("GatherND", limit, rows))
        return (
            graph.op("Compress", stream, goes_on, axis=0),
            graph.op("Compress", rows, goes_on, axis=0),
            signal,
        )


class _Skip(_Policy):
    """A row leaves out one stage and may run the next."""

    def build(self, stream: str, limits: str) -> tuple[str, str, str]:
        graph, pieces = self._graph, self._pieces
        batch = graph.op("Shape", limits, start=1, end=2)
        ran, signals = [], []
        for i, signal_piece in enumerate(pieces.signals):
            pooled = graph.inline(pieces.pool, stream)
            signal = graph.inline(signal_piece, pooled)
            signals.append(signal)
            limit = graph.op("Gather", limits, graph.constant(np.array(i, dtype=np.int64)), axis=0)
            rows = graph.op("NonZero", graph.op("Less", signal, limit))
            rows = graph.op("Transpose", rows, perm=[1, 0])
            ran.append(rows)
            some = graph.op("Cast", graph.op("Size", rows), to=TensorProto.BOOL)
            then, otherwise = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
            out = then.inline(pieces.stages[i], then.op("GatherND", stream, rows))
            out = then.op("ScatterND", stream, rows, out)
            stream = graph.op(
                "If",
                some,
                then_branch=then.branch(f"stage{i}", [out]),
                else_branch=otherwise.branch(f"stage{i}_none", [stream]),
            )
        depth = _count_depth(graph, batch, ran, self._depths)
        return graph.inline(pieces.pool, stream), depth, graph.op("Concat", *signals, axis=0)


def _count_depth(graph: GraphBuilder, batch: str, ran: Sequence[str], depths: Sequence[int]) -> str:
    # Stages of one length are counted together: one scatter for each length there is.
    depth = graph.op("Expand", graph.integers(depths[0]), batch)
    for length in sorted(set(depths[1:])):
        alike = [rows for rows, blocks in zip(ran, depths[1:], strict=True) if blocks == length]
        rows = graph.op("Concat", *alike, axis=0)
        count = graph.op("Shape", rows, start=0, end=1)
        added = graph.op("Expand", graph.integers(length), count)
        depth = graph.op("ScatterND", depth, rows, added, reduction="add")
    return depth


def _one() -> TensorProto:
    return helper.make_tensor("one", TensorProto.INT64, [1], [1])


def _shape(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    dimensions: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dimensions
