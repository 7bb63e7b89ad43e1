"""What exits read while a network is tuned: features of a stream, and a head on them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# As wide as the heads that are fitted afterwards.
HIDDEN = 128
# Sides of the grid that the channels of a picture are averaged in, beside mean and maximum.
GRID = 2


def features(stream: Tensor, mask: Tensor | None) -> Tensor:
    """Numbers an exit reads off a stream [B, features], in FP32.

    Args:
        stream: Tokens [B, length, width], channels [B, channels, …], or numbers [B, width].
        mask: 1 where a token is real [B, length], or ``None``.
    """
    stream = stream.float()
    if stream.ndim == 2:
        return stream
    if stream.ndim == 3:
        real = torch.ones(stream.shape[:2], device=stream.device) if mask is None else mask
        weight = real.to(stream.dtype).unsqueeze(-1)
        mean = (stream * weight).sum(1) / weight.sum(1).clamp(min=1)
        largest = stream.masked_fill(weight == 0, -torch.inf).amax(1)
        return torch.cat([mean, stream[:, 0], largest], dim=1)
    flat = stream.flatten(2)
    grid = nn.functional.adaptive_avg_pool2d(stream, GRID).flatten(1)
    return torch.cat([flat.mean(2), flat.amax(2), grid], dim=1)


class Heads(nn.Module):
    """One head for each stream before the last: they are thrown away after tuning.

    Args:
        widths: Features of each stream.
        classes: Of the answer.
    """

    def __init__(self, widths: list[int], classes: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(width, affine=False),
                nn.Linear(width, HIDDEN),
                nn.ReLU(),
                nn.Linear(HIDDEN, classes),
            )
            for width in widths
        )

    def forward(self, found: list[Tensor]) -> list[Tensor]:
        """Logits [B, classes] of each head."""
        return [head(one) for head, one in zip(self.heads, found, strict=True)]
