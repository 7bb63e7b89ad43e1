"""Residual networks built node by node, to be cut, weighed and refused."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

WIDTH, CLASSES, OPSET = 6, 3, 18
value = helper.make_tensor_value_info


class Graph:
    """A residual network [batch, 6] → [batch, 3], node by node."""

    def __init__(self, opset=OPSET):
        self.opset, self.nodes, self.constants = opset, [], []
        self.rng = np.random.default_rng(0)

    def op(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values, name=None):
        name = name or f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def weigh(self, x, a=WIDTH, b=WIDTH):
        weights = self.rng.standard_normal((a, b)).astype(np.float32) / a**0.5
        return self.op("MatMul", x, self.constant(weights))

    def block(self, x, a=WIDTH, b=WIDTH):
        inner = self.op("Relu", self.weigh(x, a, b))
        return self.op("Add", x if a == b else self.weigh(x, a, b), inner)

    def model(self, out, batch="batch", shape=None, domains=()):
        self.nodes.append(helper.make_node("Identity", [out], ["out"]))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [value("x", TensorProto.FLOAT, [batch, WIDTH])],
            [value("out", TensorProto.FLOAT, shape or ["batch", CLASSES])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid(domain, 1) for domain in domains]
        return helper.make_model(graph, opset_imports=opsets, ir_version=8)


WIDE = 64


def wide(blocks=3):
    made = Graph()
    x = made.weigh("x", WIDTH, WIDE)
    for _ in range(blocks):
        x = made.block(x, WIDE, WIDE)
    return made.model(made.weigh(x, WIDE, CLASSES))
