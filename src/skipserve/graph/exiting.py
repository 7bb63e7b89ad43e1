"""The policy ``exit`` in the one-file form: rows that stop leave the batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from skipserve.graph.assemble import ANSWER
from skipserve.graph.builder import GraphBuilder
from skipserve.graph.policy import Policy


class Exiting(Policy):
    """Builds the one-file form of the policy ``exit``."""

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
        """Run stage ``i`` on the carried tensors, and let rows leave."""
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
        # No rows are left: the empty stream before the stage stands for the one behind it.
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
        """Tensors behind stage ``i`` that later stages read, the stream first."""
        later = {name for j in range(i + 1, len(self.parts.stages)) for name in self.inputs_of(j)}
        made_later = {
            self.parts.stages[j].graph.output[0].name for j in range(i + 1, len(self.parts.stages))
        }
        return sorted(later - made_later)

    def _newest(self, stages: str, parts: int) -> str:
        """The place of each row's last part in the concatenation of all parts.

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
    """State of the rows behind a stage.

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
