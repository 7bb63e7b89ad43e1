"""The training loop: epochs of clipped gradient steps, with gradient norms by layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from skipserve.cores import usable_cores
from skipserve.errors import TrainingDiverged
from skipserve.networks import NetworkConfig, ResidualNetwork, build_network
from skipserve.training.config import TrainingConfig
from skipserve.training.gradients import GradientNorms
from skipserve.training.history import Epoch
from skipserve.training.one_cycle import one_cycle
from skipserve.training.recipes import Recipe, Samples

# Share of the steps until the learning rate is at its peak.
RISE = 0.25


def fit(
    config: NetworkConfig,
    recipe: Recipe,
    training: TrainingConfig,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    on_step: Callable[[int, int], None] = lambda done, steps: None,
) -> tuple[ResidualNetwork, list[Epoch]]:
    """Train a network from scratch; the same arguments give the same weights on one machine.

    Args:
        config: What is trained.
        recipe: Draws the rows.
        training: How.
        on_epoch: Receives the results of each epoch.
        on_step: Receives, after each step, the finished steps and their total.

    Raises:
        TrainingDiverged: When the loss of a step is not finite, naming the epoch.
    """
    torch.set_num_threads(training.threads or usable_cores())
    torch.manual_seed(training.seed)
    train, test = recipe.draw("train"), recipe.draw("test")
    network = build_network(config)
    network.scaling.fit(train.inputs)
    steps = math.ceil(len(train) / training.batch_size)
    optimizer = _optimizer(network, training)
    schedule = _schedule(optimizer, training, steps)
    history, done = [], 0
    for number in range(1, training.epochs + 1):
        network.train()
        gradients, total = GradientNorms(network), 0.0
        for inputs, labels in _batches(train, training.batch_size):
            loss = objective(network, recipe.augment(inputs), labels, training)
            if not loss.isfinite():
                raise TrainingDiverged(_advice(number, loss.item(), training))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            gradients.add()
            if training.clip_norm:
                nn.utils.clip_grad_norm_(network.parameters(), training.clip_norm)
            optimizer.step()
            schedule.step()
            total += loss.item() * len(labels)
            done += 1
            on_step(done, training.epochs * steps)
        epoch = Epoch(number, total / len(train), accuracy(network, test), gradients.means())
        history.append(epoch)
        on_epoch(epoch)
    return network.eval(), history


def objective(
    network: ResidualNetwork, inputs: Tensor, labels: Tensor, training: TrainingConfig
) -> Tensor:
    """Cross-entropy at full depth and, weighted, at every exit before it.

    Args:
        network: In training mode.
        inputs: Raw rows [B, *inputs].
        labels: Classes [B].
        training: Says ``exit_loss`` and ``layer_dropout``.

    Returns:
        ``CE_L + exit_loss · Σ_{d<L} d/L · CE_d``, a scalar.
    """
    if not training.exit_loss and not training.layer_dropout:
        return nn.functional.cross_entropy(network(inputs), labels)
    streams = list(_thinned_streams(network, inputs, training.layer_dropout))
    loss = nn.functional.cross_entropy(network.answer(streams[-1]), labels)
    if training.exit_loss:
        depth = len(streams)
        for block, stream in enumerate(streams[:-1], start=1):
            early = nn.functional.cross_entropy(network.answer(stream), labels)
            loss = loss + training.exit_loss * block / depth * early
    return loss


def _thinned_streams(network: ResidualNetwork, inputs: Tensor, dropout: float) -> Iterator[Tensor]:
    stream = network.stem(network.scaling(inputs))
    last = len(network.blocks) - 1
    for index, block in enumerate(network.blocks):
        chance = dropout * index / max(last, 1)
        if chance:
            stays = torch.rand(len(stream), *[1] * (stream.dim() - 1)) >= chance
            stream = torch.where(stays, block(stream), stream)
        else:
            stream = block(stream)
        yield stream


@torch.no_grad()
def accuracy(network: ResidualNetwork, samples: Samples, batch_size: int = 1024) -> float:
    """Share of ``samples`` whose label is the arg max of the network's full-depth logits."""
    network.eval()
    right = 0
    for rows in torch.split(torch.arange(len(samples)), batch_size):
        right += int((network(samples.inputs[rows]).argmax(1) == samples.labels[rows]).sum())
    return right / len(samples)


def _batches(samples: Samples, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    for rows in torch.split(torch.randperm(len(samples)), size):
        yield samples.inputs[rows], samples.labels[rows]


def _optimizer(network: nn.Module, training: TrainingConfig) -> torch.optim.Optimizer:
    # Biases, norms and scales are not decayed: that would pull them to 0, not to simplicity.
    parameters = list(network.parameters())
    groups = [
        {
            "params": [p for p in parameters if p.dim() > 1],
            "weight_decay": training.weight_decay,
        },
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=training.learning_rate)
    return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)


def _schedule(
    optimizer: torch.optim.Optimizer, training: TrainingConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if training.schedule == "one_cycle":
        return one_cycle(optimizer, training.learning_rate, training.epochs * steps, RISE)
    return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _advice(epoch: int, loss: float, training: TrainingConfig) -> str:
    clip = (
        "set clip_norm = 1.0"
        if not training.clip_norm
        else f"lower clip_norm = {training.clip_norm:g}"
    )
    return (
        f"training diverged in epoch {epoch}: the loss is {loss}, expected a finite number; "
        f"{clip} or lower learning_rate = {training.learning_rate:g}. No checkpoint was saved."
    )
