"""Signals: one number a row, read off the pooled stream; the larger, the more settled the answer.

All are computed in FP32 also in FP16 networks: a sum of squares overflows FP16 at a norm of 256.
A stream that is not finite gives a signal that is not finite either, on which no row stops.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

SignalName = Literal["norm", "projected_norm", "margin", "confidence"]

# Nothing is divided by less: the smallest number of float32 with all of its digits.
SMALLEST = torch.finfo(torch.float32).tiny


def row_norm(values: Tensor) -> Tensor:
    """L2 norms of rows [B, n] to [B]; overflows only where the norm itself is beyond float32.

    Squares of single numbers overflow from 2e19 and vanish below 1e-23, so the largest is taken
    out first. NaN for rows that are not finite.
    """
    largest = values.abs().amax(dim=-1, keepdim=True).clamp(min=SMALLEST)
    norm: Tensor = torch.linalg.vector_norm(values / largest, dim=-1) * largest.squeeze(-1)
    return norm


class Norm(nn.Module):
    """The L2 norm of the pooled stream."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        return row_norm(pooled.float())


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
        pooled = pooled.float()
        # The offset is divided too, so never by less than 1.
        largest = pooled.abs().amax(dim=-1, keepdim=True).clamp(min=1.0)
        projected = (pooled / largest) @ self.projection + self.offset / largest
        signal: Tensor = torch.linalg.vector_norm(projected, dim=-1) * largest.squeeze(-1)
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
        logits = self.head(pooled).float()
        first, second = logits.topk(2, dim=-1).values.unbind(dim=-1)
        # 0, or NaN if a logit is not finite: where NaN stands among the largest is anybody's guess.
        unknown = (logits - logits).sum(dim=-1)
        signal: Tensor = first - second + unknown
        return signal
