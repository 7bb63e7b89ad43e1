"""A network that ends in logits, as most exported ones do."""

from __future__ import annotations

import torch


class Logits(torch.nn.Module):
    """From points to the logits of a network."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, point: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(point)
        return logits
