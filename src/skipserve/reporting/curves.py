"""Accuracy and disagreement against blocks run, for everything that could decide how deep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skipserve.reporting.readings import Reading
from skipserve.routing.judge import ByDepth, StoppingResult, at_random, judge, oracle
from skipserve.routing.projection import fisher
from skipserve.routing.propose import (
    BOLD,
    CANDIDATES,
    CAREFUL,
    Observations,
    greedy,
    where_rows_leave,
)

# Chances of leaving at each decision.
CHANCES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Curve:
    """One way of choosing how deep, from careful to bold.

    Attributes:
        name: A signal, ``fixed``, ``random`` or ``oracle``.
        blocks: Mean blocks run [P].
        disagreement: Rate at which answers differ from those of full depth [P].
        accuracy: Rate of right answers [P], or ``None`` without labels.
        rows: It was measured on.
    """

    name: str
    blocks: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    accuracy: NDArray[np.float64] | None
    rows: int


def baselines(readings: ByDepth) -> list[Curve]:
    """Fixed depth, leaving at random, and the oracle, which knows the answer of full depth.

    Leaving at random is an expectation, computed: at each depth with the same chance. The oracle
    leaves at the first depth that answers like full depth; allowed to err, it gives up the rows
    that would take it deepest.

    Args:
        readings: Answers by depth.
    """
    count, depths = readings.agrees.shape
    fixed = [judge(readings, np.full(count, at)) for at in range(depths)]
    tossed = [at_random(readings, chance) for chance in CHANCES]
    known = [oracle(readings, share) for share in np.linspace(0, 0.5, 51)]
    labelled = readings.right is not None
    return [
        _curve("fixed", fixed, labelled, count),
        _curve("random", tossed, labelled, count),
        _curve("oracle", known, labelled, count),
    ]


def signal_curves(
    proposing: Reading, measured: Reading, labels: NDArray[np.int64] | None
) -> list[Curve]:
    """Every signal that can be computed, without a guard.

    What is to be fitted is fitted on one half of ``proposing``, thresholds are proposed on the
    other, and both measured on other rows.

    Args:
        proposing: Of rows that are not measured on.
        measured: The same depths of the rows that are.
        labels: The true ones of those, or ``None``.
    """
    fitting, proposing = proposing[::2], proposing[1::2]
    agrees, answered = proposing.by_depth().agrees, measured.by_depth(labels)
    before, after = _signals(fitting, proposing), _signals(fitting, measured)
    curves = []
    for name in sorted(before.keys() & after.keys()):
        observed, shown = (
            Observations(measured.blocks, values, same[:, :-1], np.ones_like(same[:, :-1]))
            for values, same in ((before[name], agrees), (after[name], answered.agrees))
        )
        points = [
            judge(answered, where_rows_leave(greedy(observed, share), shown))
            for share in np.geomspace(CAREFUL, BOLD, CANDIDATES)
        ]
        curves.append(_curve(name, points, labels is not None, len(measured.answers)))
    return curves


def _signals(fitting: Reading, reading: Reading) -> dict[str, NDArray[np.float32]]:
    """By name [N, D − 1]."""
    if reading.task.link != "softmax" or reading.task.border is not None:
        return dict(reading.signals)
    early = reading.answers[:, :-1]
    top = np.sort(np.log(np.maximum(early, SMALLEST)), axis=2)
    found = {
        "confidence": early.max(axis=2),
        # A difference of logits is one of log probabilities.
        "margin": top[:, :, -1] - top[:, :, -2],
    }
    if reading.streams is not None and fitting.streams is not None:
        streams, known = reading.streams[:, :-1], fitting.streams
        found["norm"] = np.linalg.norm(streams, axis=2)
        labels = fitting.answers[:, -1].argmax(axis=1)
        if len(np.unique(labels)) > 1:
            fits = [fisher(known[:, at], labels) for at in range(streams.shape[1])]
            found["projected_norm"] = np.stack(
                [
                    np.linalg.norm(streams[:, at] @ weights + offset, axis=1)
                    for at, (weights, offset) in enumerate(fits)
                ],
                axis=1,
            )
    return {**found, **reading.signals}


def _curve(name: str, points: Sequence[StoppingResult], labelled: bool, rows: int) -> Curve:
    order = sorted(points, key=lambda point: -point.blocks)
    return Curve(
        name,
        np.array([point.blocks for point in order]),
        np.array([point.disagreement for point in order]),
        np.array([point.accuracy for point in order]) if labelled else None,
        rows,
    )
