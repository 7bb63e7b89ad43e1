"""Signals: one number a row, read off the pooled stream; the larger, the more settled the answer.

All are computed in FP32 also in FP16 networks: a sum of squares overflows FP16 at a norm of 256.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

SignalName = Literal["norm", "projected_norm", "margin", "confidence"]


class Norm(nn.Module):
    """The L2 norm of the pooled stream."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        signal: Tensor = torch.linalg.vector_norm(pooled.float(), dim=-1)
        return signal


class ProjectedNorm(nn.Module):
    """The L2 norm of the pooled stream after a projection fitted for one depth.

    Args:
        projection: [width, k], float32.
        offset: [k], float32; what the projection of a settled row is measured from.
    """

    projection: Tensor
    offset: Tensor

    def __init__(self, projection: Tensor, offset: Tensor) -> None:
        super().__init__()
        self.register_buffer("projection", projection)
        self.register_buffer("offset", offset)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        projected = torch.addmm(self.offset, pooled.float(), self.projection)
        signal: Tensor = torch.linalg.vector_norm(projected, dim=-1)
        return signal


class Confidence(nn.Module):
    """The largest probability of the head, read early."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        signal: Tensor = self.head(pooled).float().softmax(dim=-1).amax(dim=-1)
        return signal


class Margin(nn.Module):
    """The lead of the largest logit of the head over the second, read early."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        first, second = self.head(pooled).float().topk(2, dim=-1).values.unbind(dim=-1)
        signal: Tensor = first - second
        return signal
