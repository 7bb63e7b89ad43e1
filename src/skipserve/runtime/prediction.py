"""Settings and predictions of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skipserve.artifacts.certificates import Measure
from skipserve.errors import InputError
from skipserve.runtime.trail import Trail
from skipserve.runtime.trail import joined as joined_trails


@dataclass(frozen=True)
class Rung:
    """A candidate that is in force.

    Attributes:
        thresholds: [decisions], float32.
        guard_limit: Of the guard that it stands behind.
        candidate: Its place.
        proposed: Whether the model's traffic proposed it.
    """

    thresholds: NDArray[np.float32]
    guard_limit: float
    candidate: int
    proposed: bool = False


@dataclass(frozen=True)
class Setting:
    """A router request, resolved to thresholds.

    Attributes:
        thresholds: [decisions], float32; +inf runs everything.
        guard_limit: +inf holds nothing back.
        risk: The ε in force, or ``None`` at full depth.
        measure: What ε bounds: ``disagreement`` with full depth, or ``accuracy_lost``.
        reason: Why a router that was asked for is off; empty if it is on or was not asked for.
        candidate: Place of the thresholds among candidates, the model's own or those that its
            traffic proposed, if they are one of them.
        proposed: Whether its traffic did.
    """

    thresholds: NDArray[np.float32]
    guard_limit: float
    risk: float | None = None
    reason: str = ""
    measure: Measure = "disagreement"
    candidate: int | None = None
    proposed: bool = False


@dataclass(frozen=True)
class Prediction:
    """Answers for a batch of B rows.

    Attributes:
        labels: What is decided by the answers, int64: classes [B], or for sets of labels a 0 or a 1
            for each [B, width]; ``None`` where the task decides nothing.
        answers: [B, width], float32; what they are, the task says.
        depth_run: Blocks run for each row [B], int64.
        held_back: Rows the guard sent to full depth [B], bool.
        signals: By row and decision [B, decisions], float32; NaN where a row did not get there.
            ``None`` without a router.
        left_out: Under the policy ``skip``, whether a row left out the blocks behind each decision
            [B, decisions], bool; ``None`` under ``exit``, where the depth says it.
        reran: Rows that overflowed FP16 and were run again in FP32 [B], bool; ``None``: none.
        trail: What every exit read, where rows give evidence.
    """

    labels: NDArray[np.int64] | None
    answers: NDArray[np.float32]
    depth_run: NDArray[np.int64]
    held_back: NDArray[np.bool_]
    signals: NDArray[np.float32] | None = None
    left_out: NDArray[np.bool_] | None = None
    reran: NDArray[np.bool_] | None = None
    trail: Trail | None = None

    def __len__(self) -> int:
        return len(self.answers)

    @cached_property
    def all_finite(self) -> bool:
        """Whether every row has a finite answer."""
        return bool(np.isfinite(self.answers).all())

    @property
    def finite(self) -> NDArray[np.bool_]:
        """Which rows have a finite answer [B]."""
        return np.asarray(np.isfinite(self.answers).all(axis=1))

    def rows(self, first: int, last: int) -> Prediction:
        """The answers for rows ``first`` to ``last`` (exclusive), without signals."""
        part = slice(first, last)
        return Prediction(
            None if self.labels is None else self.labels[part],
            self.answers[part],
            self.depth_run[part],
            self.held_back[part],
            reran=None if self.reran is None else self.reran[part],
        )


def joined(parts: Sequence[Prediction]) -> Prediction:
    """Concatenate the predictions of several batches; at least one."""
    if len(parts) == 1:
        return parts[0]
    signals = [part.signals for part in parts if part.signals is not None]
    labels = [part.labels for part in parts if part.labels is not None]
    counts = [len(part) for part in parts]
    return Prediction(
        np.concatenate(labels) if labels else None,
        np.concatenate([part.answers for part in parts]),
        np.concatenate([part.depth_run for part in parts]),
        np.concatenate([part.held_back for part in parts]),
        np.concatenate(signals) if len(signals) == len(parts) else None,
        _whole([part.left_out for part in parts], counts),
        _whole([part.reran for part in parts], counts),
        joined_trails([part.trail for part in parts], counts),
    )


def _whole(
    parts: Sequence[NDArray[np.bool_] | None], counts: Sequence[int]
) -> NDArray[np.bool_] | None:
    """Concatenate what may be missing, which means false; ``None`` if all of it is."""
    some = next((part for part in parts if part is not None), None)
    if some is None:
        return None
    none = [np.zeros((count, *some.shape[1:]), dtype=bool) for count in counts]
    return np.concatenate([no if one is None else one for one, no in zip(parts, none, strict=True)])


def overflow(answers: Prediction) -> InputError:
    """The error for finite rows without a finite answer."""
    row = int(np.argmin(answers.finite))
    return InputError(
        "not_finite",
        f"row {row} is finite but overflows inside the network; "
        "expected features like those it was trained on",
        row=row,
    )
