"""Probing: graphs with free dimensions of which not every size will do."""

from __future__ import annotations

import numpy as np
import pytest
from cutting import run_stages, sessions_of
from onnx import TensorProto, helper, numpy_helper

from skipserve.errors import CutError
from skipserve.graph.cut import cut
from skipserve.graph.memory import open_model
from skipserve.graph.prepare import prepare
from skipserve.graph.probe import probe_sizes, probed
from skipserve.routing.network import network_of
from skipserve.sources.brought import signature_of
from skipserve.tasks import Classify

CHANNELS, CLASSES = 4, 3
value = helper.make_tensor_value_info


class Pictures:
    """A convolutional network on pictures [batch, 1, height, width], node by node."""

    def __init__(self):
        self.nodes, self.constants = [], []
        self.rng = np.random.default_rng(0)

    def op(self, kind, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, values):
        name = f"w{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def integers(self, *values):
        return self.constant(np.array(values, np.int64))

    def convolve(self, x, into, kernel, **attributes):
        weights = self.rng.standard_normal((CHANNELS, into, kernel, kernel)) / kernel
        return self.op("Conv", x, self.constant(weights.astype(np.float32)), **attributes)

    def block(self, x):
        return self.op("Add", x, self.op("Relu", self.convolve(x, CHANNELS, 3, pads=[1] * 4)))

    def model(self, x, height="height", width="width", batch="batch"):
        pooled = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        weights = self.rng.standard_normal((CHANNELS, CLASSES)).astype(np.float32)
        self.nodes.append(helper.make_node("MatMul", [pooled, self.constant(weights)], ["out"]))
        graph = helper.make_graph(
            self.nodes,
            "graph",
            [value("x", TensorProto.FLOAT, [batch, 1, height, width])],
            [value("out", TensorProto.FLOAT, ["batch", CLASSES])],
            self.constants,
        )
        opset = [helper.make_opsetid("", 18)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8)


def pictures(count, height, width, seed=0):
    drawn = np.random.default_rng(seed).standard_normal((count, 1, height, width))
    return {"x": drawn.astype(np.float32)}


def checked(model, height, width, others=()):
    """The network is cut on rows of one size, and its stages compute it at this and others."""
    network = network_of(prepare(model), signature_of(model), Classify(classes=CLASSES))
    rows, symbols = pictures(6, height, width), network.signature.symbols
    stages = cut(network.flow, network.found, network.cuts, rows, symbols)
    sessions, plain = sessions_of(stages), open_model(network.model)
    for count, (high, wide) in enumerate([(height, width), *others], start=1):
        some = pictures(count, high, wide, seed=count)
        got = run_stages(stages, sessions, some)
        np.testing.assert_allclose(got, plain.run(None, some)[0], atol=1e-5)
    return stages


def test_a_least_size_is_found():
    made = Pictures()
    x = made.convolve("x", 1, 16, strides=[16, 16])
    stages = checked(made.model(made.block(made.block(x))), 32, 32, [(16, 48), (50, 17)])
    assert stages.shapes[0] == (-1, CHANNELS, -1, -1)


def test_a_multiple_is_found():
    """As of networks that halve a picture and double it again."""
    made = Pictures()
    x = made.convolve("x", 1, 3, pads=[1] * 4)
    low = made.op("MaxPool", x, kernel_shape=[16, 16], strides=[16, 16])
    scales = made.constant(np.float32([1, 1, 16, 16]))
    x = made.op("Add", x, made.op("Resize", low, "", scales, mode="nearest"))
    stages = checked(made.model(made.block(made.block(x))), 32, 48, [(16, 64), (48, 16)])
    assert stages.shapes[-1] == (-1, CHANNELS, -1, -1)


def test_a_size_that_is_the_only_one_is_a_number():
    made = Pictures()
    x = made.convolve("x", 1, 3, pads=[1] * 4)
    grid = made.rng.standard_normal((1, CHANNELS, 9, 9)).astype(np.float32)
    x = made.op("Add", x, made.constant(grid))
    stages = checked(made.model(made.block(made.block(x))), 9, 9)
    assert stages.shapes[-1] == (-1, CHANNELS, 9, 9)


def test_height_and_width_are_not_taken_for_each_other():
    """A block that asks the picture itself how wide it is."""
    made = Pictures()
    x = made.block(made.convolve("x", 1, 3, pads=[1] * 4))
    high, wide = (made.op("Shape", "x", start=axis, end=axis + 1) for axis in (2, 3))
    for _ in range(2):
        inner = made.op("Relu", made.convolve(x, CHANNELS, 3, pads=[1] * 4))
        shape = made.op("Concat", made.integers(-1, CHANNELS), wide, high, axis=0)
        turned = made.op("Reshape", inner, shape)
        x = made.op("Add", x, made.op("Transpose", turned, perm=[0, 1, 3, 2]))
    checked(made.model(x), 12, 20, [(20, 12), (7, 9)])


def test_where_no_batch_runs_it_is_said_so_whatever_else_is_free():
    made = Pictures()
    x = made.block(made.block(made.convolve("x", 1, 3, pads=[1] * 4)))
    shape = made.integers(4, CHANNELS, -1, 1)
    model = made.model(made.op("Reshape", x, shape))
    with pytest.raises(CutError, match=r"does not run on 2 rows: .*its batch dimension must be"):
        checked(model, 5, 5)


def test_no_two_dimensions_have_the_same_sizes_if_they_need_not():
    rows = {"x": np.zeros((6, 1, 32, 32)), "ids": np.zeros((6, 200), np.int64)}
    symbols = {"x": ("batch", 1, "height", "width"), "ids": ("batch", "length")}
    first, second, *_, last = probe_sizes(rows, symbols)
    assert len(set(first.values())) == 3 and max(map(max, first.values())) <= 64
    assert second["height"] == second["width"]
    assert last == {"height": (32,) * 3, "width": (32,) * 3, "length": (200,) * 3}
    made = probed(rows, symbols, lambda feeds: feeds)
    assert [len(one["x"]) for one in made] == [2, 3, 5]
    for i, one in enumerate(made):
        assert one["x"].shape[1:] == (1, first["height"][i], first["width"][i])
        assert one["ids"].shape[1] == first["length"][i]
    assert list(probe_sizes({"x": np.zeros((4, 6))}, {"x": ("batch", 6)})) == [{}]
