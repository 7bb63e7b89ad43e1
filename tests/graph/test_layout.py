"""Stages of 2-D networks run in channel blocks, as the uncut network does."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from cutting import cut_everywhere, network_from, run_stages, sessions_of
from onnx import TensorProto, helper, numpy_helper

from skipserve.graph.layout import in_blocks

CHANNELS, BLOCKS, SIZE = 16, 3, 6
NCHWC = "com.microsoft.nchwc"


def resnet(channels: int = CHANNELS) -> onnx.ModelProto:
    """A stem and blocks of two convolutions beside their stream, and the mean of every channel."""
    random = np.random.default_rng(0)
    nodes, weights = [], []

    def convolve(x: str, inputs: int) -> str:
        shape = (channels, inputs, 3, 3)
        values = (random.standard_normal(shape) / np.sqrt(9 * inputs)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{len(weights)}"))
        made, weight = f"conv{len(nodes)}", weights[-1].name
        nodes.append(helper.make_node("Conv", [x, weight], [made], pads=[1, 1, 1, 1]))
        return made

    def op(kind: str, *inputs: str, **attributes: int) -> str:
        made = f"{kind.lower()}{len(nodes)}"
        nodes.append(helper.make_node(kind, inputs, [made], **attributes))
        return made

    x = op("Relu", convolve("x", 1))
    for _ in range(BLOCKS):
        inner = convolve(op("Relu", convolve(x, channels)), channels)
        x = op("Relu", op("Add", inner, x))
    last = op("Flatten", op("GlobalAveragePool", x))
    nodes.append(helper.make_node("Identity", [last], ["out"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "resnet",
        [value("x", TensorProto.FLOAT, ["batch", 1, SIZE, SIZE])],
        [value("out", TensorProto.FLOAT, ["batch", channels])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def computed(model: onnx.ModelProto, tmp_path) -> Counter[str]:
    """What a session makes of a graph: how often each kind of node is in it."""
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4  # that it holds for this machine alone is known
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(
        node.op_type if node.domain in ("", NCHWC) else f"{node.domain}.{node.op_type}"
        for node in onnx.load(tmp_path / "optimised.onnx").graph.node
    )


@pytest.fixture
def network(tmp_path):
    onnx.save(resnet(), tmp_path / "resnet.onnx")
    return network_from(tmp_path / "resnet.onnx", CHANNELS)


def rows_of(count):
    return {"x": np.random.default_rng(1).standard_normal((count, 1, SIZE, SIZE), np.float32)}


def test_a_stage_computes_its_residual_sums_within_its_convolutions(network, tmp_path):
    uncut = computed(network.model, tmp_path)
    if not uncut["ReorderOutput"]:
        pytest.skip("ONNX Runtime computes in no blocks of channels on this machine")
    assert uncut["Add"] == 0
    for stage in cut_everywhere(network, rows_of(4)).stages[1:]:
        found = computed(stage.model, tmp_path)
        assert found["Add"] == 0
        assert found["ReorderInput"] <= 1
        assert found["ReorderOutput"] <= 1


def test_it_changes_no_number(network):
    rows = rows_of(5)
    rows["x"][1, 0, 2] = np.inf
    rows["x"][2, 0, 3, 3] = np.nan
    stages = cut_everywhere(network, rows)
    got = run_stages(stages, sessions_of(stages), rows)
    expected = ort.InferenceSession(network.model.SerializeToString()).run(None, rows)[0]
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "fits"), [(16, True), (12, False)])
def test_only_whole_blocks_of_channels_that_are_convolved_are_put_into_blocks(channels, fits):
    value = helper.make_tensor_value_info
    shape = [None, channels, SIZE, SIZE]
    weight = numpy_helper.from_array(np.zeros((channels, channels, 1, 1), np.float32), "w")
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("Conv", ["s", "w"], ["c"]),
                helper.make_node("Add", ["s", "c"], ["out"]),
            ],
            "block",
            [value("s", TensorProto.FLOAT, shape)],
            [value("out", TensorProto.FLOAT, shape)],
            [weight],
        )
    )
    in_blocks(model, "s", [-1, channels, SIZE, SIZE])
    assert ([node.op_type for node in model.graph.node] == ["AveragePool", "Conv", "Add"]) == fits
    onnx.checker.check_model(model)
