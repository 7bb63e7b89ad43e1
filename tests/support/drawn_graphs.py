"""Graphs of vectors drawn node by node, whose blocks are known."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper


class Drawn:
    """A graph of vectors [batch, 4], drawn node by node."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def op(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def weigh(self, x, width=4):
        """A product with weights, and a ReLU."""
        name = f"w{len(self.constants)}"
        rng = np.random.default_rng(len(self.constants))
        values = rng.standard_normal((width, 4)).astype(np.float32) / 2
        self.constants.append(helper.make_tensor(name, TensorProto.FLOAT, values.shape, values))
        return self.op("Relu", self.op("MatMul", x, name))

    def model(self, output, inputs=("x",)):
        value = helper.make_tensor_value_info
        shape = ["batch", 4]
        self.nodes.append(helper.make_node("Identity", [output], ["out"]))
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [value(name, TensorProto.FLOAT, shape) for name in inputs],
            [value("out", TensorProto.FLOAT, shape)],
            self.constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
