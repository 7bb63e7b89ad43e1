"""What reads a pooled stream: signals, and heads fitted to one depth.

Signals are one number a row; the larger, the more settled the answer. All are computed in FP32
also in FP16 networks: a sum of squares overflows FP16 at a norm of 256. A stream that is not finite
gives a signal that is not finite either, on which no row stops.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.errors import ConfigError
from skipserve.networks.blocks import Block
from skipserve.routing.projection import fisher

# Weight decay of the probe, on standardised streams.
PROBE_DECAY = 1e-3
# Steps of a fit of a head, and the weight of the squared distance from the head it starts at.
STEPS, RIDGE = 100, 1e-4
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


class Carry(nn.Module):
    """How much of the stream the gate of the next block carries past it: 1 − its mean opening.

    In a conv net the gate is read off the pooled stream, one evaluation a row and not one a
    position.

    Args:
        block: A gated block.

    Raises:
        ConfigError: If it has no gate.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        if not isinstance(block, Block) or block.gate is None:
            raise ConfigError("the gate is a signal only in networks with connection = 'gated'")
        gate = block.gate
        assert isinstance(gate, nn.Linear | nn.Conv1d)
        self.gate = gate

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        weight, bias = self.gate.weight.flatten(1).float(), self.gate.bias
        opening = nn.functional.linear(
            pooled.float(), weight, None if bias is None else bias.float()
        )
        return 1 - opening.sigmoid().mean(dim=-1)


class SmallNorm(nn.Module):
    """The L2 norm of the pooled stream, negated: should a small norm mean that all is settled."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        return -row_norm(pooled.float())


class Chance(nn.Module):
    """A number that knows nothing of the row, from torch's global generator."""

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32, uniform in [0, 1)."""
        return torch.rand(len(pooled))


class Probe(nn.Module):
    """A linear probe of the pooled stream for "the answer is already that of full depth".

    Args:
        weight: [width].
        bias: Scalar.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, pooled: Tensor) -> Tensor:
        """Pooled stream [B, width] to signal [B], float32."""
        return pooled.float() @ self.weight + self.bias


def fit_probes(pooled: Tensor, agrees: NDArray[np.bool_]) -> list[nn.Module]:
    """Fit one probe a decision by logistic regression.

    Args:
        pooled: [N, depth, width].
        agrees: Whether the answer after each block is that of full depth [N, depth].
    """
    targets = torch.from_numpy(agrees).float()
    return [_fit_probe(pooled[:, i], targets[:, i]) for i in range(pooled.shape[1] - 1)]


def _fit_probe(rows: Tensor, target: Tensor) -> Probe:
    mean, deviation = rows.mean(dim=0), rows.std(dim=0) + 1e-6
    scaled = (rows - mean) / deviation
    weight = torch.zeros(rows.shape[1], requires_grad=True)
    bias = torch.zeros((), requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        misfit = nn.functional.binary_cross_entropy_with_logits(scaled @ weight + bias, target)
        total = misfit + PROBE_DECAY * (weight @ weight + bias * bias)
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    scale = weight.detach() / deviation
    return Probe(scale, bias.detach() - mean @ scale)


def fisher_norm(pooled: Tensor, answers: Tensor) -> ProjectedNorm:
    """Project on the directions that tell the network's own answers apart.

    Args:
        pooled: Streams at one depth [N, width].
        answers: What full depth answers [N].
    """
    weight, offset = fisher(pooled.numpy(), answers.numpy())
    return ProjectedNorm(torch.from_numpy(weight), torch.from_numpy(offset))


def distil_head(shared: nn.Module, pooled: Tensor, answers: Tensor) -> nn.Module:
    """Fit a copy of the shared head to one depth of the frozen stream; no labels are needed.

    Distillation (Hinton et al., arXiv:1503.02531) at temperature 1, by L-BFGS.

    Args:
        shared: The network's own head, pooled stream to logits.
        pooled: Pooled streams there [N, width].
        answers: Probabilities at full depth for the same rows [N, classes].
    """
    head = copy.deepcopy(shared)
    parameters = [p.requires_grad_() for p in head.parameters()]
    starts = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.LBFGS(parameters, max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        pairs = zip(parameters, starts, strict=True)
        away = torch.stack([((p - start) ** 2).sum() for p, start in pairs]).sum()
        value = nn.functional.cross_entropy(head(pooled), answers) + RIDGE * away
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return head.requires_grad_(False)
