"""Producers and consumers of the tensors of an ONNX graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import onnx

# Nodes whose output depends only on the shape of a tensor.
SIZES = frozenset({"Shape", "Size"})


class Flow:
    """An ONNX graph with the producer and the consumers of every tensor.

    Args:
        model: Without control flow; its nodes are in topological order, as ONNX demands.

    Attributes:
        model: As given.
        nodes: Of the graph, in order.
        constants: Initializers by name.
        inputs: Names of the graph's inputs that are not constants.
        outputs: Names of the graph's outputs.
        maker: Place of the node that makes a tensor, by name.
        readers: Places of the nodes that read a tensor, by name.
        follows_inputs: Tensors whose values depend on what is in an input, not on its size alone.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = [one.name for one in graph.input if one.name not in self.constants]
        self.outputs = [one.name for one in graph.output]
        self.maker: dict[str, int] = {}
        self.readers: dict[str, list[int]] = defaultdict(list)
        for place, node in enumerate(self.nodes):
            for name in node.output:
                if name:
                    self.maker[name] = place
            for name in node.input:
                if name:
                    self.readers[name].append(place)
        self.follows_inputs, _ = self.behind(self.inputs)

    def behind(self, sources: Iterable[str]) -> tuple[set[str], set[int]]:
        """Tensors whose values depend on those of ``sources``, and the nodes that make them."""
        tensors, places = set(sources), set()
        for place, node in enumerate(self.nodes):
            if node.op_type not in SIZES and not tensors.isdisjoint(node.input):
                places.add(place)
                tensors.update(name for name in node.output if name)
        return tensors, places

    def before(self, target: str) -> set[int]:
        """Places of the nodes that the values of ``target`` depend on."""
        places: set[int] = set()
        waiting, seen = [target], set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            place = self.maker.get(name)
            if place is None:
                continue
            places.add(place)
            if self.nodes[place].op_type not in SIZES:
                waiting += [one for one in self.nodes[place].input if one]
        return places
