"""One cycle of the learning rate: a rise and a fall, for any number of steps."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(
    optimizer: torch.optim.Optimizer, peak: float | list[float], steps: int, rise: float
) -> OneCycleLR:
    """Schedule one cycle (Smith and Topin, arXiv:1708.07120).

    Args:
        optimizer: Whose rates change.
        peak: The highest rate, of all groups or of each.
        steps: Of the whole run.
        rise: Share of the steps until the peak. A rise of one step or less is left out: PyTorch
            divides by the steps behind the first.
    """
    share = rise if rise * steps > 1 else 0.0
    return OneCycleLR(optimizer, max_lr=peak, total_steps=steps, pct_start=share)
