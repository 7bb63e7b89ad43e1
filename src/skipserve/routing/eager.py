"""Exits in PyTorch, for TorchScript files of networks trained here.

They hold the same numbers as those in the ONNX graphs (graph/exit_graph.py) and decide alike.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from skipserve.errors import ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import Policy
from skipserve.routing.exits import Exit, Layout


class Features(nn.Module):
    """Features of a stream, as :func:`skipserve.graph.exit_graph.build_features` has them."""

    grid: Tensor

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.kind = layout.kind
        grid = layout.grid
        self.register_buffer("grid", torch.empty(0) if grid is None else torch.from_numpy(grid))

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor]:
        """A stream [B, …] to features [B, features] and its mean over positions [B, width]."""
        x = stream.float()
        if self.kind == "vector":
            return x, x
        if self.kind == "tokens":
            mean = x.mean(dim=1)
            return torch.cat([mean, x[:, 0], x.amax(dim=1)], dim=1), mean
        flat = x.flatten(2)
        mean, largest = flat.mean(dim=2), flat.amax(dim=2)
        square = torch.linalg.vector_norm(flat, dim=2) / flat.shape[2] ** 0.5
        parts = [mean, largest]
        if self.grid.numel():
            parts.append((flat @ self.grid).flatten(1))
        return torch.cat([*parts, square], dim=1), mean


class EagerExit(nn.Module):
    """Answer, signal and distance at one cut.

    Args:
        exit_: The numbers.
        own: The network's pool and head, for an exit without a head of its own.
        dtype: Of the stream.
    """

    def __init__(self, exit_: Exit, own: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.features = Features(exit_.layout)
        whiten = torch.from_numpy(exit_.guard.whiten)
        centre = torch.from_numpy(exit_.guard.centre)
        self.guard = _linear(whiten, -(centre.double() @ whiten.double()).float())
        self.signal = exit_.signal
        head = exit_.head
        self.own = own if head is None else nn.Identity()
        self.shared = head is None
        layers: list[nn.Module] = []
        for weight, bias in head.layers if head else ():
            layers += [_linear(torch.from_numpy(weight), torch.from_numpy(bias)), nn.ReLU()]
        self.head = nn.Sequential(*layers[:-1])
        self.project: nn.Module = nn.Identity()
        if exit_.projection is not None:
            self.project = _linear(*map(torch.from_numpy, exit_.projection))

    def forward(self, stream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A stream [B, …] to answer [B, width], signal [B] and distance [B], float32."""
        features, mean = self.features(stream)
        logits = self.own(stream).float() if self.shared else self.head(features)
        answer = logits.softmax(dim=-1)
        distance = torch.linalg.vector_norm(self.guard(features), dim=1)
        if self.signal == "confidence":
            signal = answer.amax(dim=-1)
        elif self.signal == "margin":
            first, second = logits.topk(2, dim=-1).values.unbind(dim=-1)
            signal = first - second
        else:
            signal = torch.linalg.vector_norm(self.project(mean), dim=-1)
        return answer, signal, distance


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight = nn.Parameter(weight.T.contiguous(), requires_grad=False)
    layer.bias = nn.Parameter(bias, requires_grad=False)
    return layer


class RoutedNetwork(nn.Module):
    """A network trained here, cut at its exits.

    Args:
        network: What is routed; copied.
        exits: What is read at each cut, in order.
        policy: ``exit`` or ``skip``.
        dtype: Precision between the scaling and the softmax.

    Raises:
        ConfigError: If the network is plain, or the signal is not computed here.
    """

    def __init__(
        self,
        network: ResidualNetwork,
        exits: Sequence[Exit],
        policy: Policy,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if not network.config.skippable:
            raise ConfigError(
                "a plain network has nothing to skip: leaving f(x) out loses x; "
                "train with connection = 'residual' or 'gated', or leave [router] out"
            )
        if any(one.estimate is not None for one in exits):
            raise ConfigError(
                "signal = 'agreement' is computed in ONNX files alone; set [export] formats = "
                "['onnx'], or another signal"
            )
        network = copy.deepcopy(network).eval()
        self.scaling = network.scaling.float()
        network.stem.to(dtype), network.blocks.to(dtype)
        own = nn.Sequential(network.pool, network.head.to(dtype))
        cuts = [one.blocks for one in exits]
        ends = [*cuts[1:], network.config.depth]
        blocks = network.blocks
        self.entry = nn.Sequential(network.stem, *blocks[: cuts[0]])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Identity(), *blocks[start:end])
            for start, end in zip(cuts, ends, strict=True)
        )
        self.exits = nn.ModuleList(EagerExit(one, copy.deepcopy(own), dtype) for one in exits)
        self.tail = own
        self.lengths = [end - start for start, end in zip(cuts, ends, strict=True)]
        self.blocks_run = cuts
        self.columns = [sum(one.leaves for one in exits[:i]) for i in range(len(exits))]
        self.leaves = [one.leaves for one in exits]
        self.decisions = sum(self.leaves)
        self.depth = network.config.depth
        self.skips = policy == "skip"
        self.dtype = dtype

    def forward(
        self, inputs: Tensor, thresholds: Tensor, guard_limit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run each row as deep as its thresholds ask.

        Args:
            inputs: Raw rows [B, *inputs], float32.
            thresholds: [B, decisions], float32; a row leaves where its signal reaches one and it
                was inside the guard at every cut so far. +inf runs everything.
            guard_limit: [B], float32; +inf holds nothing back.

        Returns:
            Answers [B, width] float32; blocks run [B] int64; held back by the guard [B] bool;
            signals [B, decisions] float32, NaN where a row did not get.
        """
        stream = self.entry(self.scaling(inputs).to(self.dtype))
        count = inputs.size(0)
        depth = torch.full([count], self.depth, dtype=torch.int64, device=inputs.device)
        inside = torch.ones([count], dtype=torch.bool, device=inputs.device)
        signals = torch.full([count, self.decisions], torch.nan, device=inputs.device)
        if self.skips:
            return self._skip(stream, thresholds, guard_limit, depth, inside, signals)
        return self._exit(stream, thresholds, guard_limit, depth, inside, signals)

    def _exit(
        self,
        stream: Tensor,
        thresholds: Tensor,
        guard_limit: Tensor,
        depth: Tensor,
        inside: Tensor,
        signals: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows = torch.arange(depth.size(0), device=depth.device)
        kept = torch.empty([0])
        for i, (leave, stage) in enumerate(zip(self.exits, self.stages)):  # noqa: B905 - scripted
            if i == 0 or rows.numel() > 0:
                answer, signal, distance = leave(stream)
                limit = guard_limit[rows]
                inside[rows] &= (distance <= limit) | (limit == torch.inf)
                if i == 0:
                    kept = torch.empty_like(answer)
                if self.leaves[i]:
                    column = self.columns[i]
                    signals[rows, column] = signal
                    stops = (signal >= thresholds[rows, column]) & signal.isfinite()
                    stops &= inside[rows]
                    gone = rows[stops]
                    kept[gone] = answer[stops]
                    depth[gone] = self.blocks_run[i]
                    rows, stream = rows[~stops], stream[~stops]
                if rows.numel() > 0:
                    stream = stage(stream)
        if rows.numel() > 0:
            kept[rows] = self.tail(stream).float().softmax(dim=-1)
        return kept, depth, ~inside, signals

    def _skip(
        self,
        stream: Tensor,
        thresholds: Tensor,
        guard_limit: Tensor,
        depth: Tensor,
        inside: Tensor,
        signals: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        for i, (leave, stage) in enumerate(zip(self.exits, self.stages)):  # noqa: B905 - scripted
            _, signal, distance = leave(stream)
            if i == 0:  # behind a block that was left out, no stream is like one of calibration
                inside = (distance <= guard_limit) | (guard_limit == torch.inf)
            signals[:, i] = signal
            stops = (signal >= thresholds[:, i]) & signal.isfinite() & inside
            depth[stops] -= self.lengths[i]
            rows = (~stops).nonzero().squeeze(1)
            if rows.numel() > 0:
                stream = stream.index_copy(0, rows, stage(stream[rows]))
        answers = self.tail(stream).float().softmax(dim=-1)
        return answers, depth, ~inside, signals
