"""The policy ``skip`` in the one-file form: a row may skip a stage and run the next."""

from __future__ import annotations

from onnx import TensorProto

from skipserve.graph.builder import GraphBuilder
from skipserve.graph.policy import Policy


class Skipping(Policy):
    """Builds the one-file form of the policy ``skip``."""

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
        """The stream behind the stage after cut ``i``, run only by ``rows``."""
        then, none = GraphBuilder(f"stage{i}/"), GraphBuilder(f"stage{i}/none/")
        stream = carried[self.parts.stages[i].graph.output[0].name]
        some = {name: then.op("GatherND", carried[name], rows) for name in self.inputs_of(i + 1)}
        (out, *_) = then.inline(self.parts.stages[i + 1], some).values()
        out = then.op("ScatterND", stream, rows, out)
        return self.if_any(rows, then, (out,), none, (stream,))[0]
