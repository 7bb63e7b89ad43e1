"""Exit heads distilled from the last, each fitted to the depth where it stands."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

STEPS = 100
# Weight of the squared distance from the shared head, which the fit starts at.
RIDGE = 1e-4


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
