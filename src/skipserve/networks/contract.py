"""The contract every network here satisfies: ``stem → block 1 … block L → pool → head``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from skipserve.networks.config import NetworkConfig


class Standardise(nn.Module):
    """Scales raw features with the mean and deviation of the training data, in FP32 or wider."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(tuple(shape)))
        self.register_buffer("deviation", torch.ones(tuple(shape)))

    def fit(self, inputs: Tensor) -> None:
        """Take mean and deviation from ``inputs`` [N, …]; a constant feature keeps deviation 1."""
        deviation = inputs.std(dim=0, correction=0)
        self.mean.copy_(inputs.mean(dim=0))
        self.deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    def forward(self, x: Tensor) -> Tensor:
        """Raw features [B, …] to standardised ones of the same shape."""
        return (x - self.mean) / self.deviation


class ResidualNetwork(nn.Module):
    """A classifier whose blocks may be left out one by one.

    Families do not subclass this: they hand in their pieces.

    Args:
        config: What the network was made from.
        stem: Standardised rows [B, *inputs] to the residual stream [B, …].
        blocks: Shape-preserving steps of the stream.
        pool: The stream to one vector a row [B, width]; signals are read off this vector.
        head: Pooled stream [B, width] to logits [B, classes]; may be applied after any block.
    """

    def __init__(
        self,
        config: NetworkConfig,
        *,
        stem: nn.Module,
        blocks: Sequence[nn.Module],
        pool: nn.Module,
        head: nn.Module,
    ) -> None:
        super().__init__()
        self.config = config
        self.scaling = Standardise(config.inputs)
        self.stem = stem
        self.blocks = nn.ModuleList(blocks)
        self.pool = pool
        self.head = head

    def streams(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the residual stream after the stem and after each block: ``depth + 1`` tensors."""
        stream = self.stem(self.scaling(x))
        yield stream
        for block in self.blocks:
            stream = block(stream)
            yield stream

    def answer(self, stream: Tensor) -> Tensor:
        """Logits [B, classes] read off a stream, at whatever depth it is."""
        logits: Tensor = self.head(self.pool(stream))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Raw rows [B, *inputs] to logits [B, classes] at full depth."""
        stream = self.stem(self.scaling(x))
        for block in self.blocks:
            stream = block(stream)
        return self.answer(stream)
