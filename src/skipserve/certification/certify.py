"""Certifying: a finite-sample bound on a risk, for anything that predicts.

Candidates are tested in an order fixed beforehand, from careful to bold, until one fails; by
fixed-sequence testing every one that passed holds at level δ together (Learn then Test,
Angelopoulos et al., arXiv:2110.01052, section 3). Two risks can be bounded. *Disagreement* with
full depth is a coin toss a row, so its p-value is the exact binomial one; where a task counts
queries, all rows of a query are one toss. *Accuracy lost* counts 1 where full depth was right and
the routed answer is wrong, −1 where it is the other way round: a bounded loss, tested by betting.
The assumption is exchangeability: inputs to come are drawn like the samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.certification.measures import Measure
from skipserve.errors import ConfigError
from skipserve.intervals import p_value, samples_needed
from skipserve.routing.propose import Thresholds
from skipserve.tasks import Task


@dataclass(frozen=True)
class Outcome:
    """The outcome of a candidate on the samples.

    Attributes:
        disagreements: Rows whose answer was not that of full depth; queries, where the task counts
            these.
        run_rate: Share of the blocks that ran.
        held_back: Share of the rows the guard held back.
        lost: 1 where only full depth was right, −1 where only the routed answer was, else 0, in
            the order of the samples [N], int8; ``None`` without labels.
        by_class: Disagreements and samples of each class of the full-depth answer; empty where
            classes are not certified one by one.
    """

    disagreements: int
    run_rate: float
    held_back: float
    lost: NDArray[np.int8] | None = None
    by_class: tuple[tuple[int, int], ...] = ()

    def same(self, other: Outcome) -> bool:
        """Whether another run counted the same."""
        counts = [(o.disagreements, o.run_rate, o.held_back, o.by_class) for o in (self, other)]
        if self.lost is None or other.lost is None:
            return counts[0] == counts[1] and self.lost is other.lost
        return counts[0] == counts[1] and bool((self.lost == other.lost).all())


@dataclass(frozen=True)
class Goal:
    """A goal of certification: a measure of risk and its bound ε."""

    risk: float
    measure: Measure = "disagreement"


@dataclass(frozen=True)
class Verdict:
    """The boldest candidate that passed for one goal.

    Attributes:
        goal: What was asked.
        candidate: Its place in the order, or ``None`` if the first failed.
        p_value: Of that candidate, or of the first.
    """

    goal: Goal
    candidate: int | None
    p_value: float


def betting_p_value(losses: NDArray[np.int8], risk: float, confidence: float) -> float:
    """Bound on the chance of such losses if their mean were ``risk`` or more.

    A gambler who bets against "mean ≥ ε" gains only by luck; by Ville's inequality one over the
    most she ever held is a p-value. Bets follow the variance seen so far (Waudby-Smith and Ramdas,
    arXiv:2010.09686, the predictable plug-in of section 3), so losses that are mostly 0 cost
    little. She stops where she holds most, so the order must not tell anything about the losses:
    in a file that is sorted by class she would stop before the bad class. They are shuffled here.

    Args:
        losses: In −1 … 1, in any order [N].
        risk: ε, in (0, 1).
        confidence: 1 − δ, at which the bets are aimed.
    """
    x = losses[_shuffled(len(losses))].astype(np.float64)
    seen = np.arange(1, len(x) + 1)
    # A prior of variance 1/4 and one sample at ε keeps bets finite.
    mean = (risk + np.cumsum(x)) / (seen + 1)
    variance = (0.25 + np.cumsum((x - mean) ** 2)) / (seen + 1)
    before = np.append(0.25, variance[:-1])
    bets = np.sqrt(2 * math.log(1 / (1 - confidence)) / (max(len(x), 1) * before[: len(x)]))
    # Half of the bet that one loss of 1 would ruin.
    bets = np.minimum(bets, 0.5 / (1 - risk))
    wealth = np.cumsum(np.log1p(bets * (risk - x)))
    return float(min(1.0, math.exp(-max(0.0, float(wealth.max(initial=0.0))))))


def _shuffled(count: int) -> NDArray[np.int64]:
    """A fixed order that looks random [count]: that of splitmix64 (Steele et al., OOPSLA 2014).

    NumPy does not promise that its generators draw the same in every version, and whoever verifies
    a certificate must bet in the same order.
    """
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)))


def shortest_fixed(
    blocks: NDArray[np.int64],
    agrees: NDArray[np.bool_],
    risk: float,
    confidence: float,
    by_class: Sequence[NDArray[np.bool_]] = (),
) -> int:
    """The shortest fixed depth that can be certified.

    Depths are tested like a router's candidates: in a fixed order, from careful to bold, by the
    same test. Full depth always holds.

    Args:
        blocks: Run at each depth [D], increasing, the last full depth.
        agrees: Whether the answer there is that of full depth [N, D], on rows that nothing else
            has touched.
        risk: ε.
        confidence: 1 − δ.
        by_class: Which rows full depth gives to each class that is certified by itself, [N] each.
    """
    shortest = int(blocks[-1])
    for depth, same in zip(blocks[-2::-1], agrees.T[-2::-1], strict=True):
        counts = [(int((~same[rows]).sum()), int(rows.sum())) for rows in by_class]
        if disagreement_p_value(int((~same).sum()), len(same), risk, counts) > 1 - confidence:
            break
        shortest = int(depth)
    return shortest


def rows_by_class(
    task: Task, labels: NDArray[np.int64] | None, per_class: bool
) -> list[NDArray[np.bool_]]:
    """Which rows full depth gives to each class that is certified by itself, [N] each.

    Args:
        task: Of the model.
        labels: What full depth decides [N]; ``None`` where the task decides nothing.
        per_class: Whether the router asks for every class; none otherwise.
    """
    return [np.asarray(labels == one) for one in range(task.classes if per_class else 0)]


def disagreement_p_value(
    disagreements: int, samples: int, risk: float, by_class: Sequence[tuple[int, int]] = ()
) -> float:
    """The exact p-value against "the rate of disagreement exceeds ε".

    Args:
        disagreements: Of all samples.
        samples: How many there are.
        risk: ε.
        by_class: Disagreements and samples of each class, where each is certified by itself: every
            one is tested at δ divided by their number, a union bound.
    """
    if not by_class:
        return p_value(disagreements, samples, risk)
    worst = max(p_value(wrong, count, risk) for wrong, count in by_class)
    return min(1.0, len(by_class) * worst)


def fewest_samples(risk: float, confidence: float, classes: int = 0) -> int:
    """Samples that certify a risk if none of them disagrees: of each class, where there are any.

    Args:
        risk: ε.
        confidence: 1 − δ.
        classes: That are certified one by one, or 0.
    """
    return samples_needed(risk, 1 - (1 - confidence) / max(classes, 1))


def certify(
    run: Callable[[Thresholds], Outcome],
    candidates: Sequence[Thresholds],
    samples: int,
    goals: Sequence[Goal],
    confidence: float,
) -> tuple[list[Verdict], list[Outcome]]:
    """Test candidates in order, each at most once, until every goal has failed.

    Args:
        run: Runs one candidate on the samples; called for as few as needed.
        candidates: From careful to bold, fixed before the samples were looked at.
        samples: How many there are.
        goals: What to certify, each risk in (0, 1) and each goal at its own level.
        confidence: 1 − δ.

    Returns:
        One verdict a goal, and the outcomes of the candidates that were run.

    Raises:
        ConfigError: If a risk or the confidence is outside (0, 1).
    """
    for value in (*(goal.risk for goal in goals), confidence):
        if not 0 < value < 1:
            raise ConfigError(f"risk and confidence must lie between 0 and 1, got {value}")
    outcomes: list[Outcome] = []
    verdicts = {goal: Verdict(goal, None, 1.0) for goal in goals}
    going = set(verdicts)
    for place, candidate in enumerate(candidates):
        outcome = run(candidate)
        outcomes.append(outcome)
        for goal in list(going):
            p = p_value_of(outcome, samples, goal, confidence)
            if p <= 1 - confidence:
                verdicts[goal] = Verdict(goal, place, p)
            else:
                going.discard(goal)
                if place == 0:
                    verdicts[goal] = Verdict(goal, None, p)
        if not going:
            break
    return [verdicts[goal] for goal in goals], outcomes


def p_value_of(outcome: Outcome, samples: int, goal: Goal, confidence: float) -> float:
    """The p-value of an outcome against "the risk exceeds the goal", or a bound on it.

    Args:
        outcome: Of one candidate.
        samples: How many there are.
        goal: What is certified.
        confidence: 1 − δ, at which the bets on accuracy lost are aimed.
    """
    if goal.measure == "disagreement":
        return disagreement_p_value(outcome.disagreements, samples, goal.risk, outcome.by_class)
    assert outcome.lost is not None
    return betting_p_value(outcome.lost, goal.risk, confidence)


def lost_of(full: NDArray[np.bool_], routed: NDArray[np.bool_]) -> NDArray[np.int8]:
    """1 where only full depth is right, −1 where only the routed answer is, else 0 [N]."""
    return full.astype(np.int8) - routed.astype(np.int8)


def outcome_of(
    differs: NDArray[np.bool_],
    depth_run: NDArray[np.int64],
    held_back: NDArray[np.bool_],
    depth: int,
    lost: NDArray[np.int8] | None = None,
    by_class: Sequence[NDArray[np.bool_]] = (),
) -> Outcome:
    """Count what a run did.

    Args:
        differs: Which units disagree with full depth [units]: rows, or queries.
        depth_run: Blocks run [N].
        held_back: By the guard [N].
        depth: Blocks of the network.
        lost: As in the outcome, if it is known what is right [N].
        by_class: Which rows full depth gives to each class that is counted by itself, [N] each.
    """
    return Outcome(
        disagreements=int(differs.sum()),
        run_rate=float(depth_run.mean() / depth),
        held_back=float(held_back.mean()),
        lost=lost,
        by_class=tuple((int(differs[rows].sum()), int(rows.sum())) for rows in by_class),
    )
