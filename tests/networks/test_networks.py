"""Every family satisfies the contract, whatever the connection and the placement of the norms."""

from __future__ import annotations

import itertools

import pytest
import torch

from skipserve.errors import ConfigError
from skipserve.networks import build_network, parse_network

SMALL = {
    "mlp": {"inputs": [2], "classes": 2, "depth": 3, "width": 8},
    "convnet": {"inputs": [40], "classes": 10, "depth": 3, "width": 8},
    "encoder": {"inputs": [40], "classes": 10, "depth": 3, "width": 8, "heads": 2, "patch": 4},
}
VARIANTS = list(
    itertools.product(SMALL, ("plain", "residual", "gated"), ("none", "pre", "post", "peri"))
)


def make(family: str, **options: object):
    torch.manual_seed(0)
    config = parse_network({"family": family, **SMALL[family], **options})
    return build_network(config).eval()


@pytest.mark.parametrize(("family", "connection", "norm"), VARIANTS)
def test_streams_end_in_the_forward_pass(family, connection, norm):
    network = make(family, connection=connection, norm=norm)
    rows = torch.randn(5, *network.config.inputs)
    with torch.no_grad():
        streams = list(network.streams(rows))
        assert len(streams) == network.config.depth + 1
        assert all(stream.shape == streams[0].shape for stream in streams)
        assert network.pool(streams[0]).shape == (5, network.config.width)
        torch.testing.assert_close(network.answer(streams[-1]), network(rows))


@pytest.mark.parametrize(("family", "connection", "norm"), VARIANTS)
def test_rows_do_not_see_each_other(family, connection, norm):
    network = make(family, connection=connection, norm=norm)
    rows = torch.randn(4, *network.config.inputs)
    with torch.no_grad():
        single = torch.cat([network(row[None]) for row in rows])
        torch.testing.assert_close(network(rows), single, atol=1e-5, rtol=1e-5)


def test_a_residual_block_adds_alpha_times_its_update():
    network = make("mlp", alpha=0.25)
    block, stream = network.blocks[0], torch.randn(3, 8)
    torch.testing.assert_close(block(stream), stream + 0.25 * block.inner(stream))


def test_a_gated_block_starts_near_the_identity_in_proportion_to_depth():
    network = make("mlp", connection="gated", depth=20)
    block, stream = network.blocks[0], torch.zeros(1, 8)
    assert block.gate(stream).sigmoid().mean().item() == pytest.approx(1 / 21, rel=1e-5)


def test_only_a_plain_network_has_nothing_to_skip():
    kinds = ("plain", "residual", "gated")
    assert [make("mlp", connection=kind).config.skippable for kind in kinds] == [False, True, True]


@pytest.mark.parametrize("pooling", ["mean", "class"])
def test_tokens_are_pooled_as_the_configuration_says(pooling):
    network = make("encoder", pooling=pooling)
    stream = torch.randn(2, 10, 8)
    expected = stream.mean(dim=1) if pooling == "mean" else stream[:, 0]
    torch.testing.assert_close(network.pool(stream), expected)


def test_scaling_is_part_of_the_network_and_survives_a_constant_feature():
    network = make("mlp")
    rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    network.scaling.fit(rows)
    torch.testing.assert_close(network.scaling(rows), torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))


def test_a_configuration_survives_json():
    config = make("encoder", connection="gated", norm="peri").config
    assert parse_network(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"family": "mpl"}, "did you mean 'mlp'"),
        ({"widht": 8}, "did you mean 'width'"),
        ({"depth": 0}, "depth"),
        ({"depth": "20"}, "depth = '20': expected a whole number"),
        ({"connection": "highway"}, "'gated'"),
        ({"alpha": float("nan")}, "alpha"),
        ({"kernel": 3}, "unknown key 'kernel'"),
    ],
)
def test_a_wrong_configuration_names_the_key_and_the_way_out(values, says):
    with pytest.raises(ConfigError, match=says):
        parse_network({"family": "mlp", "inputs": [2], "classes": 2, **values})


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigError, match="heads = 3 does not divide width = 8"):
        make("encoder", heads=3)
