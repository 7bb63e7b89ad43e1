"""A builder of ONNX graphs: adds operators one by one, and whole graphs inline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper


@dataclass
class GraphBuilder:
    """Collects the nodes of one graph or subgraph; a prefix keeps names unique.

    Attributes:
        prefix: Of every name made here.
        nodes: In order of execution.
        initializers: Constants of this graph; subgraphs see those of the graph around them.
    """

    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    _count: int = 0

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output and return its name."""
        return self.ops(kind, inputs, 1, **attributes)[0]

    def ops(
        self, kind: str, inputs: Sequence[str], outputs: int, **attributes: Any
    ) -> tuple[str, ...]:
        """Add a node of several outputs and return their names."""
        names = tuple(self._name(kind) for _ in range(outputs))
        self.nodes.append(helper.make_node(kind, list(inputs), list(names), **attributes))
        return names

    def name_it(self, value: str, name: str) -> None:
        """Give a tensor a fixed name, such as that of an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def constant(self, value: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = self._name("constant")
        self.initializers.append(numpy_helper.from_array(value.copy(), name))
        return name

    def integers(self, *values: int) -> str:
        """Add an int64 vector and return its name."""
        return self.constant(np.array(values, dtype=np.int64))

    def inline(self, piece: onnx.ModelProto, inputs: Mapping[str, str]) -> dict[str, str]:
        """Add the nodes of a whole graph.

        Args:
            piece: A graph of the same opset.
            inputs: What each of its inputs is called here.

        Returns:
            What each of its outputs is called here.
        """
        graph = piece.graph
        names = {"": "", **inputs}

        def rename(name: str) -> str:
            if name not in names:
                names[name] = self._name(name)
            return names[name]

        for tensor in graph.initializer:
            copied = onnx.TensorProto()
            copied.CopyFrom(tensor)
            copied.name = rename(tensor.name)
            self.initializers.append(copied)
        for node in graph.node:
            copy = onnx.NodeProto()
            copy.CopyFrom(node)
            copy.name = ""
            copy.ClearField("input")
            copy.ClearField("output")
            copy.input.extend(rename(name) for name in node.input)
            copy.output.extend(rename(name) for name in node.output)
            self.nodes.append(copy)
        return {one.name: rename(one.name) for one in graph.output}

    def branch(self, name: str, outputs: Sequence[str]) -> onnx.GraphProto:
        """Close this builder as a subgraph; outputs of the outer graph are passed through."""
        made = {output for node in self.nodes for output in node.output}
        own = [out if out in made else self.op("Identity", out) for out in outputs]
        values = [helper.make_empty_tensor_value_info(out) for out in own]
        return helper.make_graph(self.nodes, name, [], values, self.initializers)

    def _name(self, hint: str) -> str:
        self._count += 1
        return f"{self.prefix}{hint}_{self._count}"
