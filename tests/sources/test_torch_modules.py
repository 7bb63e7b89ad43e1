"""Torch modules as sources: what they hold beside weights is no hindrance."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from skipserve.graph.memory import open_model
from skipserve.sources.module import module_graph

pytestmark = pytest.mark.slow


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm1d(6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.relu(self.inner(self.norm(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    blocks = [Block() for _ in range(3)]
    return nn.Sequential(nn.Linear(4, 6), *blocks, nn.Linear(6, 3)).eval()


def test_a_network_with_batch_norms_is_read_and_known_by_all_it_holds() -> None:
    rows = torch.randn(5, 4)
    model, source = module_graph(network(), rows[:2], "made")
    (got,) = open_model(model).run(None, {model.graph.input[0].name: rows.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), network()(rows), atol=1e-5, rtol=0)
    assert module_graph(network(), rows[:2], "made")[1].sha256 == source.sha256
    counted = network()
    counted[1].norm.num_batches_tracked += 1  # a number without dimensions
    shifted = network()
    shifted[3].norm.running_mean[2] += 0.1
    hashes = {module_graph(one, rows[:2], "made")[1].sha256 for one in (counted, shifted)}
    assert len(hashes) == 2 and source.sha256 not in hashes
