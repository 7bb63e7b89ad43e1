"""The result of tuning: the module, its loss of accuracy, and how often its exits agree."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass(frozen=True)
class TuningResult:
    """The result of tuning.

    Attributes:
        module: TuningResult, or as it was where every epoch harmed full depth too much.
        epoch: The epoch whose weights it has; 0 if it was not tuned.
        harm: Share by which full depth lost accuracy on the rows kept back; share of changed
            answers where they have no labels. Negative where it gained.
        exits: Share of those rows that each exit answers as full depth does, before and after.
    """

    module: nn.Module
    epoch: int
    harm: float
    exits: tuple[tuple[float, float], ...]

    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.epoch:
            return (
                f"tuning is left out: full depth lost {100 * self.harm:.2f} points at least; "
                "lower tuning.learning_rate or allow more with tuning.harm"
            )
        before, after = (100 * sum(one) / len(one) for one in zip(*self.exits, strict=True))
        return (
            f"tuned: exits answer {after:.1f} % as full depth does on average, {before:.1f} % "
            f"before; full depth lost {100 * self.harm:.2f} points"
        )
