"""Fitting a router to a trained network: its guard, and signals that have something to learn."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import islice

import torch
from torch import Tensor, nn

from skipserve.errors import ConfigError
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import RouterConfig
from skipserve.routing.guard import fit_guard
from skipserve.routing.heads import distil_head
from skipserve.routing.routed import Router
from skipserve.routing.signals import Confidence, Margin, Norm, ProjectedNorm

# Share of the mean variance added to the within-class covariance before it is inverted.
RIDGE = 1e-3
# Streams of convolutions and tokens are large: so many rows determine a covariance.
MOST_ROWS = 20_000


def fit_router(
    config: RouterConfig,
    network: ResidualNetwork,
    decisions: Sequence[int],
    training: Tensor,
    calibration: Tensor,
) -> tuple[Router, float]:
    """Fit the router of a network; no labels are needed.

    Args:
        config: Which signal, policy and guard.
        network: Trained, in evaluation mode.
        decisions: Blocks run when each decision is taken.
        training: Raw rows [N, *inputs] to fit signals and the guard on.
        calibration: Raw rows [M, *inputs] that nothing is fitted to: the guard's limit is a
            quantile of theirs, and holds back as many of any rows like them.

    Returns:
        The router, and the limit of its guard (+inf if it is off).

    Raises:
        ConfigError: If a decision is not inside the network, or rows overflow in it.
    """
    depth = network.config.depth
    if not decisions or decisions[0] < 1 or decisions[-1] >= depth:
        raise ConfigError(
            f"router.stages must lie in 2 … {depth}, the blocks of the network; "
            f"got {[blocks + 1 for blocks in decisions]}"
        )
    heads: list[nn.Module] = []
    if config.exit_heads == "distilled":
        heads = _distilled_heads(network, decisions, training)
    if config.signal == "projected_norm":
        signals = _projected_norms(network, decisions, training)
    elif config.signal == "norm":
        signals = [Norm() for _ in decisions]
    else:
        read = Margin if config.signal == "margin" else Confidence
        signals = [read(head) for head in heads or [network.head for _ in decisions]]
    known = torch.cat(list(_streams_at(network, training[:MOST_ROWS], decisions[0])))
    guard = fit_guard(network, known)
    limit = float("inf")
    if config.guard < 1:
        distance = torch.cat([guard(s) for s in _streams_at(network, calibration, decisions[0])])
        # NaN is as far as can be; a limit of +inf would switch the guard off.
        distance = distance.double().nan_to_num(nan=torch.inf, posinf=torch.inf)
        limit = float(torch.quantile(distance, config.guard))
        if not math.isfinite(limit):
            rows = int((~distance.isfinite()).sum())
            raise ConfigError(
                f"{rows} of {len(distance)} calibration rows overflow in the network, too many "
                f"for router.guard = {config.guard:g}; take them out of the data"
            )
    return Router(tuple(decisions), signals, guard, config.policy, tuple(heads)), limit


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


def _distilled_heads(
    network: ResidualNetwork, decisions: Sequence[int], inputs: Tensor
) -> list[nn.Module]:
    pooled = pooled_streams(network, inputs)
    with torch.no_grad():
        answers = network.head(pooled[:, -1]).softmax(dim=1)
    return [distil_head(network.head, pooled[:, blocks - 1], answers) for blocks in decisions]


def _projected_norms(
    network: ResidualNetwork, decisions: Sequence[int], inputs: Tensor
) -> list[nn.Module]:
    pooled = pooled_streams(network, inputs)
    with torch.no_grad():
        answers = network.head(pooled[:, -1]).argmax(dim=1)
    return [_fisher_norm(pooled[:, blocks - 1].double(), answers) for blocks in decisions]


def _fisher_norm(pooled: Tensor, answers: Tensor) -> ProjectedNorm:
    """Project on the directions that tell the network's own answers apart.

    Fisher's discriminant (1936), in closed form: whiten within the classes, keep the span of the
    class means. A row far from the middle of that span is settled.
    """
    mean = pooled.mean(dim=0)
    classes = torch.unique(answers)
    means = torch.stack([pooled[answers == label].mean(dim=0) for label in classes])
    within = pooled - means[torch.searchsorted(classes, answers)]
    scatter = within.T @ within / len(within)
    scatter += RIDGE * scatter.trace() / len(scatter) * torch.eye(len(scatter))
    whiten = torch.linalg.inv(torch.linalg.cholesky(scatter))
    _, _, directions = torch.linalg.svd((means - mean) @ whiten.T, full_matrices=False)
    projection = (directions[: len(classes) - 1] @ whiten).T
    return ProjectedNorm(projection.float(), -(mean @ projection).float())
