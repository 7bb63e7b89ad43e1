"""The whole router in one ONNX graph, for any ONNX Runtime without this package.

Per cut: what its exit reads, a comparison with the row's threshold, ``Compress`` of the rows that
go on, and one ``If`` that holds the next stage, so that skipped work is not done. It decides as the
stepping engine does (runtime/stepper.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from skipserve.graph.assemble import ANSWER, DISTANCE, SIGNAL
from skipserve.graph.builder import GraphBuilder
from skipserve.graph.prepare import IR_VERSION
from skipserve.routing.exits import Exit

THRESHOLDS, GUARD_LIMIT = "thresholds", "guard_limit"


@dataclass(frozen=True)
class Parts:
    """What a routed graph is put together from.

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


def one_file(parts: Parts) -> onnx.ModelProto:
    """Put stages and exits into one graph.

    Inputs are those of the network, ``thresholds`` [batch, decisions] and ``guard_limit`` [batch];
    outputs its answer, ``depth_run`` [batch] int64 and ``held_back`` [batch] bool.
    """
    builder = _Skip(parts) if parts.readers else _Exit(parts)
    answer, depth, held = builder.build()
    graph, plain = builder.graph, parts.plain.graph
    names = {plain.output[0].name: answer, "depth_run": depth, "held_back": held}
    for name, made_here in names.items():
        graph.name_it(made_here, name)
    decisions = sum(exit_.leaves for exit_ in parts.exits)
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        graph.nodes,
        "routed",
        [
            *plain.input,
            value(THRESHOLDS, TensorProto.FLOAT, ["batch", decisions]),
            value(GUARD_LIMIT, TensorProto.FLOAT, ["batch"]),
        ],
        [
            value(plain.output[0].name, TensorProto.FLOAT, ["batch", parts.width]),
            value("depth_run", TensorProto.INT64, ["batch"]),
            value("held_back", TensorProto.BOOL, ["batch"]),
        ],
        graph.initializers,
    )
    return helper.make_model(made, opset_imports=parts.plain.opset_import, ir_version=IR_VERSION)


class _Policy:
    """What both policies are built from."""

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


class _Exit(_Policy):
    """Rows that stop leave the batch for good."""

    def build(self) -> tuple[str, str, str]:
        graph, parts = self.graph, self.parts
        rows = graph.op("Transpose", self.everyone, perm=[1, 0])  # (B, 1): indices for GatherND
        carried = {one.name: one.name for one in parts.plain.graph.input}
        inside, decision = "", -1
        ran: list[str] = []
        answers: list[str] = []
        insides: list[str] = []
        for i, exit_ in enumerate(parts.exits):
            decision += exit_.leaves
            here = decision if exit_.leaves else -1
            if i == 0:
                state = self._stage(graph, i, carried, rows, inside, here)
            else:
                state = self._in_if(i, carried, rows, inside, here)
            carried, rows, inside = state.carried, state.rows, state.inside
            if exit_.leaves:
                answers.append(state.answer)
                insides.append(state.all_inside)
                ran.append(rows)
        answers.append(self._last(carried, rows))
        insides.append(inside)
        stages = self.scatter_add(
            graph.op("ConstantOfShape", self.batch), graph.op("Concat", *ran, axis=0), 1
        )
        stages = graph.op("Cast", stages, to=TensorProto.INT64)
        blocks = [exit_.blocks for exit_ in parts.exits if exit_.leaves]
        depth = graph.op("Gather", graph.integers(*blocks, parts.depth), stages, axis=0)
        last = self._newest(stages, len(answers))
        held = graph.op(
            "Not", graph.op("Gather", graph.op("Concat", *insides, axis=0), last, axis=0)
        )
        answer = graph.op("Gather", graph.op("Concat", *answers, axis=0), last, axis=0)
        return answer, depth, held

    def _stage(
        self,
        graph: GraphBuilder,
        i: int,
        carried: dict[str, str],
        rows: str,
        inside: str,
        decision: int,
    ) -> _State:
        """Run stage ``i`` on what is carried, and let rows leave."""
        names = {name: carried[name] for name in self.inputs_of(i)}
        made = graph.inline(self.parts.stages[i], names)
        inside, stops = self.stops(graph, made, rows, inside, decision)
        wanted = self._needed(i)
        after = {name: made.get(name, carried.get(name, "")) for name in wanted}
        if not stops:
            return _State(after, rows, inside, "", inside)
        goes_on = graph.op("Not", stops)
        kept = {name: graph.op("Compress", one, goes_on, axis=0) for name, one in after.items()}
        left = graph.op("Compress", rows, goes_on, axis=0)
        within = graph.op("Compress", inside, goes_on, axis=0)
        return _State(kept, left, within, made[ANSWER], inside)

    def _in_if(
        self, i: int, carried: dict[str, str], rows: str, inside: str, decision: int
    ) -> _State:
        then, none = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
        state = self._stage(then, i, carried, rows, inside, decision)
        wanted = list(state.carried)
        stream = self.parts.stages[i].graph.output[0].name
        before = self.parts.stages[i - 1].graph.output[0].name
        # Nothing is left to run: the stream before stands for the one behind, it has no row either.
        idle = [carried[before] if name == stream else carried[name] for name in wanted]
        made = [*state.carried.values(), state.rows, state.inside, state.all_inside]
        idle += [rows, inside, inside]
        if state.answer:
            made.append(state.answer)
            idle.append(none.constant(np.zeros((0, self.parts.width), np.float32)))
        out = self.if_any(rows, then, made, none, idle)
        n = len(wanted)
        return _State(
            dict(zip(wanted, out[:n], strict=True)),
            out[n],
            out[n + 1],
            out[n + 3] if state.answer else "",
            out[n + 2],
        )

    def _last(self, carried: dict[str, str], rows: str) -> str:
        i = len(self.parts.stages) - 1
        then, none = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
        names = {name: carried[name] for name in self.inputs_of(i)}
        (answer,) = then.inline(self.parts.stages[i], names).values()
        idle = none.constant(np.zeros((0, self.parts.width), np.float32))
        return self.if_any(rows, then, (answer,), none, (idle,))[0]

    def _needed(self, i: int) -> list[str]:
        """What later stages read of all that is there behind stage ``i``, the stream first."""
        later = {name for j in range(i + 1, len(self.parts.stages)) for name in self.inputs_of(j)}
        made_later = {
            self.parts.stages[j].graph.output[0].name for j in range(i + 1, len(self.parts.stages))
        }
        return sorted(later - made_later)

    def _newest(self, stages: str, parts: int) -> str:
        """Where each row's last part stands when all parts are put behind each other.

        Rows stand in order in each part, so a row's place is the number of those in earlier parts
        and before it in its own.

        Args:
            stages: Decisions at which each row went on [B], int64.
            parts: One a decision, and one of those that ran everything.
        """
        graph = self.graph
        flat = graph.integers(-1)
        order = graph.constant(np.arange(parts, dtype=np.int64)[:, None])
        there = graph.op("LessOrEqual", order, stages)
        there = graph.op("Reshape", graph.op("Cast", there, to=TensorProto.INT64), flat)
        places = graph.op("CumSum", there, graph.constant(np.array(0, np.int64)), exclusive=1)
        of_row = graph.op("Add", graph.op("Mul", stages, self.batch), self.everyone)
        return graph.op("Gather", places, graph.op("Reshape", of_row, flat), axis=0)


@dataclass(frozen=True)
class _State:
    """What is known behind a stage.

    Attributes:
        carried: Tensors that later stages read, of the rows that go on.
        rows: Which these are [n, 1].
        inside: Whether they were inside the guard so far [n].
        answer: Answers of all rows of the stage, if rows may leave behind it.
        all_inside: Whether each row of the stage was inside so far.
    """

    carried: dict[str, str]
    rows: str
    inside: str
    answer: str
    all_inside: str


class _Skip(_Policy):
    """A row leaves out one stage and may run the next."""

    accumulates = False

    def build(self) -> tuple[str, str, str]:
        graph, parts = self.graph, self.parts
        everyone = graph.op("Transpose", self.everyone, perm=[1, 0])
        carried = {one.name: one.name for one in parts.plain.graph.input}
        carried |= graph.inline(
            parts.stages[0], {name: carried[name] for name in self.inputs_of(0)}
        )
        depth = graph.op("ConstantOfShape", self.batch)
        depth = self.scatter_add(depth, everyone, parts.depth)
        ends = [*(exit_.blocks for exit_ in parts.exits[1:]), parts.depth]
        inside = ""
        for i, (exit_, end) in enumerate(zip(parts.exits, ends, strict=True)):
            reader = parts.readers[i]
            read = graph.inline(reader, {one.name: carried[one.name] for one in reader.graph.input})
            inside, stops = self.stops(graph, read, everyone, inside, i)
            left_out = graph.op("Transpose", graph.op("NonZero", stops), perm=[1, 0])
            depth = self.scatter_add(depth, left_out, exit_.blocks - end)
            rows = graph.op("Transpose", graph.op("NonZero", graph.op("Not", stops)), perm=[1, 0])
            carried[parts.stages[i + 1].graph.output[0].name] = self._run(i, carried, rows)
        names = {name: carried[name] for name in self.inputs_of(len(parts.stages) - 1)}
        (answer,) = graph.inline(parts.stages[-1], names).values()
        held = graph.op("Not", inside)
        return answer, graph.op("Cast", depth, to=TensorProto.INT64), held

    def _run(self, i: int, carried: dict[str, str], rows: str) -> str:
        """The stream behind the stage after cut ``i``, which ``rows`` alone run."""
        then, none = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
        stream = carried[self.parts.stages[i].graph.output[0].name]
        some = {name: then.op("GatherND", carried[name], rows) for name in self.inputs_of(i + 1)}
        (out, *_) = then.inline(self.parts.stages[i + 1], some).values()
        out = then.op("ScatterND", stream, rows, out)
        return self.if_any(rows, then, (out,), none, (stream,))[0]
