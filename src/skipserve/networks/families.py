"""The families of networks, each a function from its configuration to the contract's pieces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from skipserve.networks.blocks import Block
from skipserve.networks.config import ConvNetConfig, EncoderConfig, MLPConfig, NetworkConfig
from skipserve.networks.contract import ResidualNetwork


def build_network(config: NetworkConfig) -> ResidualNetwork:
    """Make a network with freshly initialised weights from torch's global generator."""
    if isinstance(config, MLPConfig):
        return _mlp(config)
    if isinstance(config, ConvNetConfig):
        return _convnet(config)
    if isinstance(config, EncoderConfig):
        return _encoder(config)
    raise TypeError(f"no family builds a {type(config).__name__}")


def _mlp(config: MLPConfig) -> ResidualNetwork:
    width = config.width

    def block() -> Block:
        inner = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        return Block(inner, config, lambda: nn.LayerNorm(width), lambda: nn.Linear(width, width))

    features = int(torch.Size(config.inputs).numel())
    return ResidualNetwork(
        config,
        stem=nn.Sequential(nn.Flatten(), nn.Linear(features, width)),
        blocks=[block() for _ in range(config.depth)],
        pool=nn.Identity(),
        head=_head(config),
    )


class AddChannel(nn.Module):
    """A signal [B, length] to one channel [B, 1, length]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)


class MeanOver(nn.Module):
    """The mean over one dimension."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=self.dim)


def _convnet(config: ConvNetConfig) -> ResidualNetwork:
    width, kernel = config.width, config.kernel

    def conv(channels: int) -> nn.Conv1d:
        return nn.Conv1d(channels, width, kernel, padding="same")

    def block() -> Block:
        inner = nn.Sequential(conv(width), nn.ReLU(), conv(width))
        return Block(
            inner, config, lambda: nn.GroupNorm(1, width), lambda: nn.Conv1d(width, width, 1)
        )

    return ResidualNetwork(
        config,
        stem=nn.Sequential(AddChannel(), conv(1)),
        blocks=[block() for _ in range(config.depth)],
        pool=MeanOver(-1),
        head=_head(config),
    )


class Patches(nn.Module):
    """A signal [B, length] to embedded patches with positions [B, tokens, width]."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.patch = config.patch
        tokens = config.inputs[0] // config.patch
        self.embed = nn.Linear(config.patch, config.width)
        self.positions = nn.Parameter(torch.randn(tokens, config.width) * 0.02)
        has_class = config.pooling == "class"
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.width)) if has_class else None

    def forward(self, x: Tensor) -> Tensor:
        patches = torch.unflatten(x, 1, (-1, self.patch))
        tokens: Tensor = self.embed(patches) + self.positions
        if self.class_token is None:
            return tokens
        return torch.cat([self.class_token.expand(x.shape[0], -1, -1), tokens], dim=1)


class ClassToken(nn.Module):
    """The first token of [B, tokens, width]."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, 0]


class Attention(nn.Module):
    """Multi-head self-attention over [B, tokens, width]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        # (B, T, 3·heads·d) → three of (B, heads, T, d)
        split = torch.unflatten(self.project_in(x), -1, (3, self.heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.project_out(mixed.transpose(1, 2).flatten(2))
        return out


def _encoder(config: EncoderConfig) -> ResidualNetwork:
    width, hidden = config.width, config.expansion * config.width

    def step(inner: nn.Module) -> Block:
        return Block(inner, config, lambda: nn.LayerNorm(width), lambda: nn.Linear(width, width))

    def block() -> nn.Module:
        # Attention and feed-forward are left out together: one block of the contract.
        feed_forward = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
        return nn.Sequential(step(Attention(width, config.heads)), step(feed_forward))

    return ResidualNetwork(
        config,
        stem=Patches(config),
        blocks=[block() for _ in range(config.depth)],
        pool=ClassToken() if config.pooling == "class" else MeanOver(1),
        head=_head(config),
    )


def _head(config: NetworkConfig) -> nn.Module:
    if config.norm == "none":
        return nn.Linear(config.width, config.classes)
    return nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.classes))
