"""Certifying: a finite-sample bound on the rate of disagreement, for anything that predicts.

Each candidate is a coin whose bias is its true rate of disagreement. Candidates are tested in an
order fixed beforehand, from careful to bold, until one fails; by fixed-sequence testing every one
that passed holds at level δ together (Learn then Test, Angelopoulos et al., arXiv:2110.01052,
section 3). The p-value of "rate > ε" is the exact binomial one. The assumption is exchangeability:
inputs to come are drawn like the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from skipserve.errors import ConfigError
from skipserve.routing.propose import Thresholds


@dataclass(frozen=True)
class Outcome:
    """What a candidate did on the samples.

    Attributes:
        disagreements: Rows whose answer was not that of full depth.
        run_rate: Share of the blocks that ran.
        held_back: Share of the rows the guard held back.
    """

    disagreements: int
    run_rate: float
    held_back: float


@dataclass(frozen=True)
class Verdict:
    """The boldest candidate that passed for one ε.

    Attributes:
        risk: ε.
        candidate: Its place in the order, or ``None`` if the first failed.
        p_value: Of that candidate, or of the first.
    """

    risk: float
    candidate: int | None
    p_value: float


def p_value(disagreements: int, samples: int, risk: float) -> float:
    """Chance of at most so many disagreements if their rate were ``risk``: exact binomial."""
    return float(binom.cdf(disagreements, samples, risk))


def samples_needed(risk: float, confidence: float) -> int:
    """Fewest samples that can certify ``risk``: those on which not one row may disagree."""
    return math.ceil(math.log(1 - confidence) / math.log(1 - risk))


def certify(
    run: Callable[[Thresholds], Outcome],
    candidates: Sequence[Thresholds],
    samples: int,
    risks: Sequence[float],
    confidence: float,
) -> tuple[list[Verdict], list[Outcome]]:
    """Test candidates in order, each at most once, until the largest risk fails.

    Args:
        run: Runs one candidate on the samples; called for as few as needed.
        candidates: From careful to bold, fixed before the samples were looked at.
        samples: How many there are.
        risks: The ε to certify, each in (0, 1) and each at its own level.
        confidence: 1 − δ.

    Returns:
        One verdict a risk, and the outcomes of the candidates that were run.

    Raises:
        ConfigError: If a risk or the confidence is outside (0, 1).
    """
    for value in (*risks, confidence):
        if not 0 < value < 1:
            raise ConfigError(f"risk and confidence must lie between 0 and 1, got {value}")
    outcomes: list[Outcome] = []
    verdicts = {risk: Verdict(risk, None, 1.0) for risk in risks}
    going = set(risks)
    for place, candidate in enumerate(candidates):
        outcome = run(candidate)
        outcomes.append(outcome)
        for risk in sorted(going):
            p = p_value(outcome.disagreements, samples, risk)
            if p <= 1 - confidence:
                verdicts[risk] = Verdict(risk, place, p)
            else:
                going.discard(risk)
                if place == 0:
                    verdicts[risk] = Verdict(risk, None, p)
        if not going:
            break
    return [verdicts[risk] for risk in risks], outcomes


def outcome_of(
    labels: NDArray[np.int64],
    full: NDArray[np.int64],
    depth_run: NDArray[np.int64],
    held_back: NDArray[np.bool_],
    depth: int,
) -> Outcome:
    """Count what a run did, given the labels of full depth on the same rows."""
    return Outcome(
        disagreements=int((labels != full).sum()),
        run_rate=float(depth_run.mean() / depth),
        held_back=float(held_back.mean()),
    )
