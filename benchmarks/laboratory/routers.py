"""Routers in PyTorch: signals and a guard between blocks, fitted without labels."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor, nn

from laboratory.guard import Guard, fit_guard
from laboratory.readers import (
    Confidence,
    Margin,
    Norm,
    distil_head,
    fisher_norm,
)
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import HeadKind, Policy
from skipserve.tasks import SignalName

# Streams of convolutions and tokens are large: so many rows determine a covariance.
MOST_ROWS = 20_000


@dataclass(frozen=True)
class Router:
    """Guard and signals of a network, one signal a decision.

    Attributes:
        decisions: Blocks run when a decision is taken, increasing, each in 1 … depth − 1; stage
            ``i`` is what lies between decision ``i`` and the next.
        signals: One module a decision, pooled stream [B, width] to [B].
        guard: Stream at the first decision [B, …] to [B].
        policy: ``exit`` leaves out all that follows, ``skip`` one stage.
        heads: One a decision, pooled stream [B, width] to the logits [B, classes] of rows that
            leave there; the network's own head answers them if there are none.
    """

    decisions: tuple[int, ...]
    signals: Sequence[nn.Module]
    guard: Guard
    policy: Policy = "exit"
    heads: Sequence[nn.Module] = ()


class Entry(nn.Module):
    """Raw FP32 rows to the stream at the first decision, in the network's precision."""

    def __init__(self, network: ResidualNetwork, blocks: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.scaling = copy.deepcopy(network.scaling).float()
        self.body = nn.Sequential(network.stem, *network.blocks[:blocks])
        self.dtype = dtype

    def forward(self, inputs: Tensor) -> Tensor:
        stream: Tensor = self.body(self.scaling(inputs).to(self.dtype))
        return stream


class Answer(nn.Module):
    """Pooled streams [B, width] to probabilities [B, classes], float32."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> Tensor:
        probabilities: Tensor = self.head(pooled).float().softmax(dim=-1)
        return probabilities


class RoutedNetwork(nn.Module):
    """A network cut into the pieces between which its router decides.

    Args:
        network: What is routed; copied.
        router: Decides.
        dtype: Precision between the scaling and the softmax.

    Attributes:
        entry: Rows to the stream at the first decision.
        stages: Stream to stream, one a decision.
        pool: Stream to pooled stream.
        signals: Pooled stream to signal.
        guard: Stream at the first decision to distance.
        first_exit: Pooled stream to what is kept of a row that leaves after the entry: its
            probabilities if exits have heads of their own, or the pooled stream as it is.
        exits: The same after each stage.
        answer: What was kept to probabilities.
        depths: Blocks in the entry and in each stage.
    """

    def __init__(
        self, network: ResidualNetwork, router: Router, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        depth = network.config.depth
        cuts = router.decisions
        network = copy.deepcopy(network).eval().to(dtype)
        ends = (*cuts[1:], depth)
        blocks = network.blocks
        self.entry = Entry(network, cuts[0], dtype)
        self.stages = nn.ModuleList(
            nn.Sequential(*blocks[start:end]) for start, end in zip(cuts, ends, strict=True)
        )
        self.pool = network.pool
        heads = [copy.deepcopy(head).to(dtype) for head in router.heads]
        self.signals = nn.ModuleList(copy.deepcopy(signal) for signal in router.signals)
        for i, signal in enumerate(self.signals):
            if hasattr(signal, "head"):
                signal.head = heads[i] if heads else network.head
        self.guard = router.guard
        self.first_exit: nn.Module = Answer(heads[0]) if heads else nn.Identity()
        self.exits = nn.ModuleList(
            [Answer(head) for head in (*heads[1:], network.head)]
            if heads
            else [nn.Identity() for _ in ends]
        )
        self.answer: nn.Module = nn.Identity() if heads else Answer(network.head)
        self.depths = [cuts[0], *(end - start for start, end in zip(cuts, ends, strict=True))]
        self.policy = router.policy

    def forward(
        self, inputs: Tensor, thresholds: Tensor, guard_limit: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run each row as deep as its thresholds ask.

        A row stops only on proof: its distance is at most its limit, and its signal is finite and
        at least its threshold. NaN and infinities prove nothing, so such a row goes on.

        Args:
            inputs: Raw rows [B, *inputs], float32.
            thresholds: [B, decisions], float32; a row goes on unless its signal reaches them. +inf
                runs everything, whatever the signal.
            guard_limit: [B], float32; a row that is not known to be this near to calibration runs
                everything. +inf holds nothing back, whatever the distance: the guard is off.

        Returns:
            Probabilities [B, classes] float32; blocks run [B] int64; held back by the guard [B]
            bool; signals of the rows at the first decision, of those that got to the second, and
            so on [T] float32.
        """
        stream = self.entry(inputs)
        held = ~((self.guard(stream) <= guard_limit) | (guard_limit == torch.inf))
        limits = torch.where(held.unsqueeze(1), torch.inf, thresholds)
        if self.policy == "exit":
            kept, depth, signals = self._exit(stream, limits)
        else:
            kept, depth, signals = self._skip(stream, limits)
        return self.answer(kept), depth, held, torch.cat(signals)

    def _exit(self, stream: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        pooled = self.pool(stream)
        kept = self.first_exit(pooled).clone()
        depth = self._entered(stream)
        rows = torch.arange(stream.size(0), device=stream.device)
        signals: list[Tensor] = []
        for i, (stage, signal, leave) in enumerate(
            zip(self.stages, self.signals, self.exits)  # noqa: B905 - scripted
        ):
            if rows.numel() > 0:
                values = signal(pooled)
                signals.append(values)
                goes_on = ~self._stops(values, limits[rows, i])
                rows, stream = rows[goes_on], stream[goes_on]
            if rows.numel() > 0:
                stream = stage(stream)
                pooled = self.pool(stream)
                kept[rows] = leave(pooled)
                depth[rows] += self.depths[i + 1]
        return kept, depth, signals

    def _skip(self, stream: Tensor, limits: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        depth = self._entered(stream)
        signals: list[Tensor] = []
        for i, (stage, signal) in enumerate(zip(self.stages, self.signals)):  # noqa: B905 - scripted
            values = signal(self.pool(stream))
            signals.append(values)
            rows = (~self._stops(values, limits[:, i])).nonzero().squeeze(1)
            if rows.numel() > 0:
                stream = stream.index_copy(0, rows, stage(stream[rows]))
                depth[rows] += self.depths[i + 1]
        return self.pool(stream), depth, signals

    def _stops(self, signal: Tensor, limits: Tensor) -> Tensor:
        return (signal >= limits) & signal.isfinite()

    def _entered(self, stream: Tensor) -> Tensor:
        return torch.full([stream.size(0)], self.depths[0], dtype=torch.int64, device=stream.device)


def fit_router(
    network: ResidualNetwork,
    signal: SignalName,
    training: Tensor,
    calibration: Tensor,
    heads: HeadKind = "shared",
    guard: float = 0.995,
) -> tuple[Router, float]:
    """Fit a router that decides after every block but the last; no labels are needed.

    Args:
        network: Trained, in evaluation mode.
        signal: What decides.
        training: Raw rows [N, *inputs] to fit signals and the guard on.
        calibration: Raw rows [M, *inputs] that nothing is fitted to. The limit of
            the guard is the quantile ``guard`` of their distances.
        heads: ``distilled``: a head for every depth; ``shared``: the network's own.
        guard: The quantile.

    Returns:
        The router, and the limit of its guard.
    """
    decisions = range(1, network.config.depth)
    own: list[nn.Module] = []
    if heads == "distilled" or signal == "projected_norm":
        pooled = pooled_streams(network, training)
        with torch.no_grad():
            answers = network.head(pooled[:, -1])
    if heads == "distilled":
        soft = answers.softmax(dim=1)
        own = [distil_head(network.head, pooled[:, at - 1], soft) for at in decisions]
    signals: list[nn.Module]
    if signal == "projected_norm":
        labels = answers.argmax(dim=1)
        signals = [fisher_norm(pooled[:, at - 1], labels) for at in decisions]
    elif signal == "norm":
        signals = [Norm() for _ in decisions]
    else:
        read = Margin if signal == "margin" else Confidence
        signals = [read(head) for head in own or [network.head for _ in decisions]]
    known = torch.cat(list(_streams_at(network, training[:MOST_ROWS], 1)))
    fitted = fit_guard(network, known)
    distance = torch.cat([fitted(stream) for stream in _streams_at(network, calibration, 1)])
    limit = float(torch.quantile(distance.double(), guard))
    return Router(tuple(decisions), signals, fitted, "exit", tuple(own)), limit


@torch.no_grad()
def pooled_streams(network: ResidualNetwork, inputs: Tensor, batch_size: int = 1000) -> Tensor:
    """The pooled stream of each row after each block [N, depth, width]."""
    parts = []
    for rows in torch.split(inputs, batch_size):
        streams = list(network.streams(rows))[1:]
        parts.append(torch.stack([network.pool(stream) for stream in streams], dim=1))
    return torch.cat(parts)


@torch.no_grad()
def _streams_at(network: ResidualNetwork, inputs: Tensor, blocks: int) -> Iterator[Tensor]:
    for rows in torch.split(inputs, 1000):
        yield next(islice(network.streams(rows), blocks, None))
