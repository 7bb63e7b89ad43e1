"""Decisions in the one-file form: comparisons, guards and branches of both policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from skipserve.graph.assemble import DISTANCE, SIGNAL
from skipserve.graph.builder import GraphBuilder
from skipserve.routing.exits import Exit

THRESHOLDS, GUARD_LIMIT = "thresholds", "guard_limit"


@dataclass(frozen=True)
class Parts:
    """The parts of a routed graph.

    Attributes:
        plain: The whole network; lends its inputs, its output and its opset.
        stages: From :func:`with_exits`; under ``skip`` bare, with the network's head as the last.
        exits: What is read behind each stage.
        readers: Under ``skip``, the exits as graphs of their own.
        depth: Blocks of the network.
        width: Numbers in an answer.
    """

    plain: onnx.ModelProto
    stages: Sequence[onnx.ModelProto]
    exits: Sequence[Exit]
    depth: int
    width: int
    readers: Sequence[onnx.ModelProto] = ()


class Policy:
    """Shared by both policies."""

    # Whether a row must be inside at every cut, or at the first alone.
    accumulates = True

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.graph = GraphBuilder()
        self.thresholds = self.graph.op("Transpose", THRESHOLDS, perm=[1, 0])
        self.batch = self.graph.op("Shape", THRESHOLDS, start=0, end=1)
        one = helper.make_tensor("value", TensorProto.INT64, [1], [1])
        ones = self.graph.op("ConstantOfShape", self.batch, value=one)
        self.everyone = self.graph.op("NonZero", ones)  # (1, B)

    def stops(
        self, graph: GraphBuilder, read: dict[str, str], rows: str, inside: str, decision: int
    ) -> tuple[str, str]:
        """Whether rows were inside so far, and whether they stop here [n] bool each."""
        if not inside or self.accumulates:
            inside = self._inside(graph, read, rows, inside)
        if decision < 0:
            return inside, ""
        index = graph.constant(np.array(decision, np.int64))
        threshold = graph.op("GatherND", graph.op("Gather", self.thresholds, index, axis=0), rows)
        reached = graph.op("GreaterOrEqual", read[SIGNAL], threshold)
        infinity = graph.constant(np.array(np.inf, np.float32))
        finite = graph.op("Less", graph.op("Abs", read[SIGNAL]), infinity)
        stops = graph.op("And", graph.op("And", reached, finite), inside)
        return inside, stops

    def _inside(self, graph: GraphBuilder, read: dict[str, str], rows: str, inside: str) -> str:
        """Whether rows are inside the guard here, and were so far [n] bool."""
        limit = graph.op("GatherND", GUARD_LIMIT, rows)
        within = graph.op("LessOrEqual", read[DISTANCE], limit)
        within = graph.op("Or", within, graph.op("IsInf", limit, detect_negative=0))
        return graph.op("And", inside, within) if inside else within

    def if_any(
        self,
        rows: str,
        then: GraphBuilder,
        made: Sequence[str],
        none: GraphBuilder,
        idle: Sequence[str],
    ) -> tuple[str, ...]:
        """Outputs of ``then`` if there are rows, those of ``none`` if not."""
        some = self.graph.op("Cast", self.graph.op("Size", rows), to=TensorProto.BOOL)
        return self.graph.ops(
            "If",
            [some],
            len(made),
            then_branch=then.branch(then.prefix, made),
            else_branch=none.branch(none.prefix, idle),
        )

    def scatter_add(self, data: str, rows: str, value: int) -> str:
        # In floats, which count exactly to 2^24: CUDA's ScatterND adds up nothing else.
        count = self.graph.op("Shape", rows, start=0, end=1)
        added = self.graph.op("Expand", self.graph.constant(np.array([value], np.float32)), count)
        return self.graph.op("ScatterND", data, rows, added, reduction="add")

    def inputs_of(self, i: int) -> list[str]:
        return [one.name for one in self.parts.stages[i].graph.input]
