"""Gradient norms by layer, which show whether gradients vanish."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class GradientNorms:
    """Means, over the steps of an epoch, of the L2 norm of every layer's weight gradient."""

    def __init__(self, network: nn.Module) -> None:
        self._weights = {
            name: module.weight
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear | nn.Conv1d)
        }
        self._sum = torch.zeros(len(self._weights))
        self._steps = 0

    def add(self) -> None:
        """Add the norms of the present gradients."""
        gradients: list[Tensor] = [
            torch.zeros_like(weight) if weight.grad is None else weight.grad
            for weight in self._weights.values()
        ]
        self._sum += torch.stack(torch._foreach_norm(gradients))
        self._steps += 1

    def means(self) -> dict[str, float]:
        """Layer name to mean norm, in the order of the network."""
        means = (self._sum / max(self._steps, 1)).tolist()
        return dict(zip(self._weights, means, strict=True))
