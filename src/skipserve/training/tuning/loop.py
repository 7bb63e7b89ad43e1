"""The tuning loop: exits learn the answers of the untuned network, and full depth keeps them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from skipserve.cores import usable_cores
from skipserve.errors import TrainingDiverged
from skipserve.training.one_cycle import one_cycle
from skipserve.training.tuning.blocks import find_residual_blocks, watch
from skipserve.training.tuning.config import TuningConfig
from skipserve.training.tuning.heads import Heads, features
from skipserve.training.tuning.lora import INSIDE, with_lora
from skipserve.training.tuning.losses import (
    are_logits,
    as_logits,
    divergence,
    harm_of,
    weighted_divergence,
)
from skipserve.training.tuning.result import TuningResult
from skipserve.training.tuning.rows import TuningRows

Say = Callable[[str], None]
BATCH = 256
# Heads learn faster than the network under them, which knows its task already.
HEADS_FASTER = 10.0
LARGEST_NORM = 1.0
# Share of the steps until the learning rates are at their peak.
RISE = 0.1


def tune(
    module: nn.Module,
    rows: TuningRows,
    kept: TuningRows,
    config: TuningConfig,
    say: Say = lambda line: None,
) -> TuningResult:
    """Fine-tune a module for early exits.

    Without labels: exits learn what the untuned network answers, full depth learns to keep it. A
    row weighs more at an exit that nearly answers as full depth does. Batch statistics and dropout
    stay as in evaluation.

    Args:
        module: Takes its inputs in order and gives logits [N, classes]; it is not changed.
        rows: To tune on.
        kept: Others, to see the harm on.
        config: How.
        say: Receives a line for each epoch.

    Raises:
        CutError: If no residual blocks are found.
        TrainingDiverged: If the loss is not finite.
    """
    torch.set_num_threads(config.threads or usable_cores())
    torch.manual_seed(config.seed)
    with torch.no_grad():
        logits = are_logits(module(*rows[torch.arange(min(len(rows), BATCH))]))
    teacher, before = _answers(module, rows, logits), _answers(module, kept, logits)
    student = copy.deepcopy(module).eval()
    blocks = find_residual_blocks(student, rows[torch.arange(2)])
    if config.weights == "lora":
        student = with_lora(student, blocks, config.rank)
        blocks = tuple(f"{INSIDE}.{name}" for name in blocks)
    if config.checkpointing:
        _run_again(student, blocks)
    found: dict[int, Tensor] = {}
    watched = watch(student, blocks, lambda place, stream: found.__setitem__(place, stream))
    try:
        heads = Heads(_widths(student, rows, found), teacher.shape[1])
        run = _Run(student, heads, found, config, logits)
        run.warm_up(rows, teacher)
        _, first = run.judge(kept)
        best: tuple[int, float, dict[str, Tensor]] | None = None
        least = math.inf
        for epoch in range(1, config.epochs + 1):
            loss = run.epoch(rows, teacher, epoch)
            now, agreeing = run.judge(kept)
            harm = harm_of(now, before, kept.labels)
            say(f"epoch {epoch}: loss {loss:.4f}, full depth lost {100 * harm:.2f} points")
            least = min(least, harm)
            if harm <= config.harm:
                state = {name: one.clone() for name, one in student.state_dict().items()}
                best, last = (epoch, harm, state), agreeing
    finally:
        for handle in watched:
            handle.remove()
    if best is None:
        return TuningResult(module, 0, least, ())
    student.load_state_dict(best[2])
    return TuningResult(
        _plain(student, blocks), best[0], best[1], tuple(zip(first, last, strict=True))
    )


class _Run:
    """One tuning run of student and heads."""

    def __init__(
        self,
        student: nn.Module,
        heads: Heads,
        found: dict[int, Tensor],
        config: TuningConfig,
        logits: bool,
    ) -> None:
        self.student, self.heads, self.found = student, heads, found
        self.config, self.logits = config, logits

    def warm_up(self, rows: TuningRows, teacher: Tensor) -> None:
        """Fit the heads on the network as it is."""
        optimizer = torch.optim.AdamW(self.heads.parameters(), lr=1e-3)
        self.heads.train()
        for index in _batches(len(rows), self.config.batch_size):
            with torch.no_grad():
                self._full(rows, index)
            early = self._early(rows, index)
            loss = sum((divergence(one, teacher[index]).mean() for one in early), torch.zeros(()))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    def epoch(self, rows: TuningRows, teacher: Tensor, number: int) -> float:
        """One pass over the rows; the mean loss."""
        config = self.config
        per_epoch = math.ceil(len(rows) / config.batch_size)
        if number == 1:
            network = [one for one in self.student.parameters() if one.requires_grad]
            self.trained = [*network, *self.heads.parameters()]
            rates = (config.learning_rate, HEADS_FASTER * config.learning_rate)
            self.optimizer = torch.optim.AdamW(
                [
                    {"params": network, "lr": rates[0]},
                    {"params": list(self.heads.parameters()), "lr": rates[1]},
                ]
            )
            self.schedule = one_cycle(self.optimizer, list(rates), config.epochs * per_epoch, RISE)
        self.heads.train()
        total = 0.0
        for index in _batches(len(rows), config.batch_size):
            full = divergence(self._full(rows, index), teacher[index]).mean()
            wanted = teacher[index]
            early = [weighted_divergence(one, wanted) for one in self._early(rows, index)]
            loss = full + config.exit_loss * torch.stack(early).mean()
            if not loss.isfinite():
                raise TrainingDiverged(
                    f"the loss of tuning is not finite in epoch {number}; lower "
                    f"tuning.learning_rate (it is {config.learning_rate:g})"
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.trained, LARGEST_NORM)
            self.optimizer.step()
            self.schedule.step()
            total += loss.item() * len(index)
        return total / len(rows)

    @torch.no_grad()
    def judge(self, rows: TuningRows) -> tuple[Tensor, list[float]]:
        """Answers at full depth [N, classes] as it is now, and which share each exit reproduces."""
        self.heads.eval()
        answers, same = [], torch.zeros(len(self.heads.heads))
        for index in torch.split(torch.arange(len(rows)), BATCH):
            full = as_logits(self.student(*rows[index]).float(), self.logits).softmax(1)
            for place, early in enumerate(self._early(rows, index)):
                same[place] += (early.argmax(1) == full.argmax(1)).sum()
            answers.append(full)
        return torch.cat(answers), [float(one) / len(rows) for one in same]

    def _full(self, rows: TuningRows, index: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.mixed):
            answer: Tensor = self.student(*rows[index])
        return as_logits(answer.float(), self.logits)

    def _early(self, rows: TuningRows, index: Tensor) -> list[Tensor]:
        mask = None if rows.mask is None else rows.inputs[rows.mask][index]
        streams = [self.found[place] for place in range(len(self.heads.heads))]
        early: list[Tensor] = self.heads([features(one, mask) for one in streams])
        return early


@torch.no_grad()
def _answers(module: nn.Module, rows: TuningRows, logits: bool) -> Tensor:
    """Probabilities at full depth [N, classes]."""
    module.eval()
    parts = [module(*rows[index]) for index in torch.split(torch.arange(len(rows)), BATCH)]
    return as_logits(torch.cat(parts).float(), logits).softmax(1)


@torch.no_grad()
def _widths(student: nn.Module, rows: TuningRows, found: dict[int, Tensor]) -> list[int]:
    student(*rows[torch.arange(2)])
    return [features(found[place], None).shape[1] for place in range(len(found) - 1)]


def _batches(rows: int, size: int) -> Iterator[Tensor]:
    """Random batches of row indices; a last batch of one row is left out."""
    for index in torch.split(torch.randperm(rows), size):
        if len(index) > 1:
            yield index


def _run_again(student: nn.Module, blocks: tuple[str, ...]) -> None:
    from torch.utils.checkpoint import checkpoint

    for name in blocks:
        block = student.get_submodule(name)
        forward = block.forward

        def again(*inputs: Any, forward: Any = forward, **named: Any) -> Any:
            return checkpoint(forward, *inputs, use_reentrant=False, **named)

        block.forward = again


def _plain(student: nn.Module, blocks: tuple[str, ...]) -> nn.Module:
    """Remove checkpointing and merge LoRA."""
    for name in blocks:
        student.get_submodule(name).__dict__.pop("forward", None)
    merge = getattr(student, "merge_and_unload", None)
    return (merge() if merge is not None else student).eval()
