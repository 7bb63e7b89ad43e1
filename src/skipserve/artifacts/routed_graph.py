"""The routed network as one ONNX graph: rows that stop leave the batch, skipped work is not done.

Per decision: pool, signal, comparison with the row's threshold, ``Compress`` of the rows that go
on, and one ``If`` that holds the stage. Every pooled stream is kept until the end, where each row
picks its last and the shared head reads them once; where exits have heads of their own, what they
answered is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

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
    exits: Sequence[onnx.ModelProto]
    answer: onnx.ModelProto | None


@torch.no_grad()
def export_pieces(routed: RoutedNetwork, rows: Tensor) -> Pieces:
    """Export every piece on its own.

    Args:
        routed: In evaluation mode.
        rows: At least two raw rows [B, *inputs].
    """
    stream = routed.entry(rows)
    pooled = routed.pool(stream)
    signals: dict[Any, onnx.ModelProto] = {}
    for signal in routed.signals:  # most are one function at every depth: exported once
        if _identity(signal) not in signals:
            signals[_identity(signal)] = export_module(signal, pooled, "signal")
    return Pieces(
        entry=export_module(routed.entry, rows, "stream"),
        stages=[export_module(stage, stream, "stream") for stage in routed.stages],
        pool=export_module(routed.pool, stream, "pooled"),
        signals=[signals[_identity(signal)] for signal in routed.signals],
        guard=export_module(routed.guard, stream, "distance"),
        exits=[
            export_module(leave, pooled, "kept")
            for leave in (routed.first_exit, *routed.exits)
            if _acts(leave)
        ],
        answer=export_module(routed.answer, pooled, "probabilities")
        if _acts(routed.answer)
        else None,
    )


def _identity(module: nn.Module) -> tuple[Any, ...]:
    """Equal for modules of one kind with the very same weights."""
    return type(module), *map(id, (*module.parameters(), *module.buffers()))


def _acts(module: nn.Module) -> bool:
    return not isinstance(module, nn.Identity)


def assemble(pieces: Pieces, routed: RoutedNetwork) -> onnx.ModelProto:
    """Put the pieces into one graph.

    Inputs ``inputs`` [B, *inputs], ``thresholds`` [B, decisions], ``guard_limit`` [B]; outputs
    ``probabilities`` [B, classes], ``depth_run`` [B], ``held_back`` [B], ``signals`` [T]: those
    of all rows at the first decision, of the rows that got to the second, and so on.
    """
    graph = GraphBuilder()
    stream = graph.inline(pieces.entry, "inputs")
    distance = graph.inline(pieces.guard, stream)
    infinity = graph.constant(_infinity())
    near = graph.op("LessOrEqual", distance, "guard_limit")  # false if either is NaN
    inside = graph.op("Or", near, graph.op("Equal", "guard_limit", infinity))
    held = graph.op("Not", inside)
    column = graph.op("Unsqueeze", inside, graph.integers(1))
    limits = graph.op("Where", column, "thresholds", infinity)
    limits = graph.op("Transpose", limits, perm=[1, 0])  # one row a decision
    router = _Exit if routed.policy == "exit" else _Skip
    kept, depth, signals = router(graph, pieces, routed.depths).build(stream, limits)
    probabilities = graph.inline(pieces.answer, kept) if pieces.answer else kept
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
    last = pieces.answer or pieces.exits[-1]
    classes = _shape(last.graph.output[0])[-1].dim_value
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

    def _branches(self, i: int) -> tuple[GraphBuilder, GraphBuilder]:
        return GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")

    def _if_any(
        self,
        i: int,
        rows: str,
        then: GraphBuilder,
        made: Sequence[str],
        none: GraphBuilder,
        idle: Sequence[str],
    ) -> tuple[str, ...]:
        """Outputs of ``then`` if there are rows to run stage ``i`` on, those of ``none`` if not."""
        some = self._graph.op("Cast", self._graph.op("Size", rows), to=TensorProto.BOOL)
        return self._graph.ops(
            "If",
            [some],
            len(made),
            then_branch=then.branch(f"stage{i}", made),
            else_branch=none.branch(f"stage{i}_none", idle),
        )

    def _goes_on(self, graph: GraphBuilder, signal: str, limit: str) -> str:
        # Not ``Less``: NaN is not less either, and would stop a row.
        reached = graph.op("GreaterOrEqual", signal, limit)
        finite = graph.op("Less", graph.op("Abs", signal), graph.constant(_infinity()))
        return graph.op("Not", graph.op("And", reached, finite))


class _Exit(_Policy):
    """Rows that stop leave the batch for good."""

    def build(self, stream: str, limits: str) -> tuple[str, str, str]:
        graph, pieces = self._graph, self._pieces
        first = graph.inline(pieces.pool, stream)
        batch = graph.op("Shape", limits, start=1, end=2)
        everyone = graph.op("NonZero", graph.op("ConstantOfShape", batch, value=_one()))
        indices = graph.op("Transpose", everyone, perm=[1, 0])  # (B, 1): indices for GatherND
        stream, rows, signal = self._decide(graph, 0, first, stream, indices, limits)
        ran, kept, signals = [], [self._keep(graph, 0, first)], [signal]
        for i in range(len(pieces.stages) - 1):
            ran.append(rows)
            stream, rows, after, signal = self._stage(i, stream, rows, limits)
            kept.append(after)
            signals.append(signal)
        ran.append(rows)
        kept.append(self._last_stage(stream, rows))
        stages = _scatter_add(graph, graph.op("ConstantOfShape", batch), ran, 1)
        stages = graph.op("Cast", stages, to=TensorProto.INT64)
        depth = graph.op("Gather", graph.integers(*np.cumsum(self._depths)), stages, axis=0)
        newest = self._newest(batch, everyone, stages, kept)
        return newest, depth, graph.op("Concat", *signals, axis=0)

    def _stage(self, i: int, stream: str, rows: str, limits: str) -> tuple[str, ...]:
        """Run stage ``i`` and decide: stream and rows that go on, what is kept, signals."""
        then, none = self._branches(i)
        out = then.inline(self._pieces.stages[i], stream)
        pooled = then.inline(self._pieces.pool, out)
        goes_on, left, signal = self._decide(then, i + 1, pooled, out, rows, limits)
        kept = self._keep(then, i + 1, pooled)
        idle = (stream, rows, none.constant(self._no_rows()), none.constant(_no_signals()))
        return self._if_any(i, rows, then, (goes_on, left, kept, signal), none, idle)

    def _last_stage(self, stream: str, rows: str) -> str:
        i = len(self._pieces.stages) - 1
        then, none = self._branches(i)
        pooled = then.inline(self._pieces.pool, then.inline(self._pieces.stages[i], stream))
        kept = self._keep(then, i + 1, pooled)
        idle = none.constant(self._no_rows())
        return self._if_any(i, rows, then, (kept,), none, (idle,))[0]

    def _keep(self, graph: GraphBuilder, i: int, pooled: str) -> str:
        exits = self._pieces.exits
        return graph.inline(exits[i], pooled) if exits else pooled

    def _decide(
        self, graph: GraphBuilder, i: int, pooled: str, stream: str, rows: str, limits: str
    ) -> tuple[str, str, str]:
        signal = graph.inline(self._pieces.signals[i], pooled)
        limit = graph.op("Gather", limits, graph.constant(np.array(i, dtype=np.int64)), axis=0)
        goes_on = self._goes_on(graph, signal, graph.op("GatherND", limit, rows))
        return (
            graph.op("Compress", stream, goes_on, axis=0),
            graph.op("Compress", rows, goes_on, axis=0),
            signal,
        )

    def _newest(self, batch: str, everyone: str, stages: str, kept: Sequence[str]) -> str:
        """Of everything that was kept, what was kept of each row last.

        Rows stand in order in each part of ``kept``, so a row's place is the number of those in
        earlier parts and before it in its own.

        Args:
            batch: B.
            everyone: Row numbers [1, B].
            stages: Run by each row [B], int64.
            kept: One part a decision, and one of those that ran everything.
        """
        graph = self._graph
        parts = graph.constant(np.arange(len(kept), dtype=np.int64)[:, None])
        there = graph.op("LessOrEqual", parts, stages)
        there = graph.op("Reshape", graph.op("Cast", there, to=TensorProto.INT64), self._flat())
        places = graph.op("CumSum", there, graph.constant(np.array(0, np.int64)), exclusive=1)
        of_row = graph.op("Add", graph.op("Mul", stages, batch), everyone)
        last = graph.op("Gather", places, graph.op("Reshape", of_row, self._flat()), axis=0)
        return graph.op("Gather", graph.op("Concat", *kept, axis=0), last, axis=0)

    def _flat(self) -> str:
        return self._graph.integers(-1)

    def _no_rows(self) -> NDArray[Any]:
        piece = self._pieces.exits[0] if self._pieces.exits else self._pieces.pool
        kind = piece.graph.output[0].type.tensor_type
        dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type)
        return np.zeros((0, kind.shape.dim[-1].dim_value), dtype)


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
            rows = graph.op("NonZero", self._goes_on(graph, signal, limit))
            rows = graph.op("Transpose", rows, perm=[1, 0])
            ran.append(rows)
            then, none = self._branches(i)
            out = then.inline(pieces.stages[i], then.op("GatherND", stream, rows))
            out = then.op("ScatterND", stream, rows, out)
            (stream,) = self._if_any(i, rows, then, (out,), none, (stream,))
        depth = _count_depth(graph, batch, ran, self._depths)
        return graph.inline(pieces.pool, stream), depth, graph.op("Concat", *signals, axis=0)


def _count_depth(graph: GraphBuilder, batch: str, ran: Sequence[str], depths: Sequence[int]) -> str:
    # Stages of one length are counted together: one scatter for each length there is.
    depth = graph.op("Expand", graph.constant(np.array([depths[0]], np.float32)), batch)
    for length in sorted(set(depths[1:])):
        alike = [rows for rows, blocks in zip(ran, depths[1:], strict=True) if blocks == length]
        depth = _scatter_add(graph, depth, alike, length)
    return graph.op("Cast", depth, to=TensorProto.INT64)


def _scatter_add(graph: GraphBuilder, data: str, ran: Sequence[str], value: int) -> str:
    # In floats, which count exactly to 2^24: CUDA's ScatterND adds up nothing else, and has no max.
    rows = graph.op("Concat", *ran, axis=0)
    count = graph.op("Shape", rows, start=0, end=1)
    added = graph.op("Expand", graph.constant(np.array([value], np.float32)), count)
    return graph.op("ScatterND", data, rows, added, reduction="add")


def _infinity() -> NDArray[np.float32]:
    return np.array(np.inf, dtype=np.float32)


def _one() -> TensorProto:
    return helper.make_tensor("value", TensorProto.INT64, [1], [1])


def _no_signals() -> NDArray[np.float32]:
    return np.zeros(0, dtype=np.float32)


def _shape(value: onnx.ValueInfoProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    dimensions: Sequence[onnx.TensorShapeProto.Dimension] = value.type.tensor_type.shape.dim
    return dimensions
