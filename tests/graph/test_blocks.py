"""Blocks that are found in a graph are those that the network is known to have."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from drawn_graphs import Drawn
from onnx import TensorProto, helper

from skipserve.artifacts.torch_files import plain_graph
from skipserve.errors import CutError
from skipserve.graph.blocks import find_blocks
from skipserve.graph.flow import Flow
from skipserve.graph.probe import read_tensors
from skipserve.networks import build_network, parse_network
from skipserve.routing.network import network_of
from skipserve.sources.recipe import signature_of
from skipserve.tasks import Classify

DEPTH = 3
FAMILIES = {
    "mlp": {"inputs": [4], "width": 8},
    "convnet": {"inputs": [12], "width": 8, "kernel": 3},
    "encoder": {"inputs": [12], "width": 8, "patch": 4, "heads": 2, "expansion": 2},
}
CONNECTIONS = ("residual", "gated", "plain")
NORMS = ("none", "pre", "post", "peri")
# Every pair of a family, a connection and a norm stands in one of these.
CASES = [
    (family, CONNECTIONS[(i + j) % 3], norm)
    for i, family in enumerate(FAMILIES)
    for j, norm in enumerate(NORMS)
]


def trained_here(family, connection, norm, **options):
    torch.manual_seed(0)
    config = {"family": family, "classes": 3, "depth": DEPTH, **FAMILIES[family], **options}
    return build_network(parse_network(config | {"connection": connection, "norm": norm})).eval()


@pytest.mark.slow
@pytest.mark.parametrize(("family", "connection", "norm"), CASES)
def test_the_stream_before_every_block_is_found(family, connection, norm):
    network = trained_here(family, connection, norm)
    config = network.config
    model = plain_graph(network)
    found = network_of(model, signature_of(config), Classify(classes=3), DEPTH)
    assert found.depth == DEPTH
    assert found.found.residual == (connection != "plain")
    if connection == "plain":  # nothing says where one of its blocks ends and the next begins
        return
    rows = torch.randn(5, *config.inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        streams = [one.numpy() for one in network.streams(rows)]
    names = [*found.cuts, found.found.last]
    (got,) = read_tensors(model, names, [{"inputs": rows.numpy()}])
    for name, expected in zip(names, streams, strict=True):
        np.testing.assert_allclose(got[name].reshape(expected.shape), expected, atol=1e-5)


@pytest.mark.slow
def test_the_class_token_does_not_hide_the_blocks():
    network = trained_here("encoder", "residual", "pre", pooling="class")
    found = network_of(plain_graph(network), signature_of(network.config), Classify(classes=3), 3)
    assert found.depth == DEPTH


def test_another_depth_than_is_known_is_refused():
    network = trained_here("mlp", "residual", "none")
    with pytest.raises(CutError, match="3 blocks were found in the graph of a network of 4"):
        network_of(plain_graph(network), signature_of(network.config), Classify(classes=3), 4)


# --- graphs made node by node ---


def search(model):
    flow = Flow(model)
    return find_blocks(flow, flow.outputs[0])


def test_a_block_may_begin_at_the_input_itself():
    drawn, x = Drawn(), "x"
    ends = []
    for _ in range(3):
        x = drawn.op("Add", x, drawn.weigh(x))
        ends.append(x)
    found = search(drawn.model(drawn.weigh(x)))
    assert [block.start for block in found.blocks] == ["x", *ends[:-1]]
    assert (found.last, found.residual) == (ends[-1], True)


def test_what_meets_elsewhere_than_in_a_sum_cannot_be_left_out():
    drawn = Drawn()
    x = drawn.weigh("x")
    x = drawn.op("Add", x, drawn.weigh(x))
    x = drawn.op("Mul", x, drawn.weigh(x))
    found = search(drawn.model(drawn.weigh(x)))
    assert [block.residual for block in found.blocks] == [True, False]
    assert not found.residual


def test_a_sum_without_the_stream_in_it_cannot_be_left_out():
    drawn = Drawn()
    x = drawn.weigh("x")
    x = drawn.op("Add", x, drawn.weigh(x))
    x = drawn.op("Add", drawn.weigh(x), drawn.weigh(x))
    found = search(drawn.model(drawn.weigh(x)))
    assert [block.residual for block in found.blocks] == [True, False]


def test_a_chain_has_its_layers_for_blocks():
    drawn, x = Drawn(), "x"
    for _ in range(4):
        x = drawn.weigh(x)
    found = search(drawn.model(x))
    assert (len(found.blocks), found.residual) == (3, False)


def test_what_flows_around_every_block_is_named():
    # Dense connections: everything that was made is read by all that follows.
    drawn = Drawn()
    made = [drawn.weigh("x")]
    for _ in range(6):
        made.append(drawn.weigh(drawn.op("Concat", *made, axis=1), 4 * len(made)))
    with pytest.raises(CutError, match=r"no block was found .*'out'.*; 't1' flows around"):
        search(drawn.model(drawn.weigh(drawn.op("Concat", *made, axis=1), 4 * len(made))))


def test_without_a_path_from_an_input_there_is_no_block():
    drawn = Drawn()
    with pytest.raises(CutError, match="no block was found between the inputs and 'out'"):
        search(drawn.model(drawn.weigh("x")))


def test_control_flow_is_refused_by_its_name():
    drawn = Drawn()
    x = drawn.weigh("x")
    branch = helper.make_graph(
        [helper.make_node("Identity", [x], ["inner"])],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("inner")],
    )
    size = drawn.op("ReduceSum", x, keepdims=0)
    condition = drawn.op("Cast", size, to=TensorProto.BOOL)
    x = drawn.op("If", condition, then_branch=branch, else_branch=branch)
    with pytest.raises(CutError, match=r"holds control flow \(If\).*export the network without it"):
        search(drawn.model(drawn.weigh(x)))
