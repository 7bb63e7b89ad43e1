"""Losses of tuning, and the accuracy that full depth loses by it."""

from __future__ import annotations

from torch import Tensor

# Answers whose rows sum to one within this are probabilities.
SUMS_TO_ONE = 1e-3


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy of logits [B, classes] to the wanted probabilities [B, classes], by row [B]."""
    return -(wanted * logits.log_softmax(1)).sum(1)


def weighted_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Mean of :func:`divergence`; a row weighs as much as the exit trusts the wanted class."""
    trust = logits.detach().softmax(1).gather(1, wanted.argmax(1, keepdim=True)).squeeze(1)
    weights = trust / trust.mean().clamp(min=1e-6)
    return (weights * divergence(logits, wanted)).mean()


def are_logits(answers: Tensor) -> bool:
    """Whether the answers of a module are logits, and not probabilities."""
    return bool((answers.sum(1) - 1).abs().max() > SUMS_TO_ONE or answers.min() < 0)


def as_logits(answers: Tensor, logits: bool) -> Tensor:
    """Logits of answers; probabilities become their logarithms."""
    return answers if logits else answers.clamp(min=1e-12).log()


def harm_of(after: Tensor, before: Tensor, labels: Tensor | None) -> float:
    """Accuracy lost, as a share of rows; without labels, the share of changed answers."""
    if labels is None:
        return float((after.argmax(1) != before.argmax(1)).float().mean())
    right = [float((one.argmax(1) == labels).float().mean()) for one in (before, after)]
    return right[0] - right[1]
