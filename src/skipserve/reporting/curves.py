"""Accuracy and disagreement against blocks run, for everything that could decide how deep."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.networks import ResidualNetwork
from skipserve.reporting.readings import BATCH, read_pooled
from skipserve.reporting.sample import Sample
from skipserve.routing.config import ExitHeads, RouterConfig
from skipserve.routing.fit import fit_router, pooled_streams
from skipserve.routing.judge import Judged, Readings, at_random, judge, oracle
from skipserve.routing.propose import BOLD, CANDIDATES, CAREFUL, greedy, propose
from skipserve.routing.routed import Policy, RoutedNetwork, Router
from skipserve.routing.signals import Confidence, Margin, SignalName
from skipserve.routing.stopping import stops

SIGNALS: tuple[SignalName, ...] = get_args(SignalName)
# Skipping changes what later blocks see, so every candidate is a run of its own: fewer of both.
SKIP_ROWS, SKIP_EVERY = 1_000, 3
# Chances of leaving, or of leaving a stage out, at each decision.
CHANCES = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)


@dataclass(frozen=True)
class Curve:
    """One way of choosing how deep, from careful to bold.

    Attributes:
        name: A signal, ``fixed``, ``random`` or ``oracle``.
        policy: ``exit`` or ``skip``.
        blocks: Mean blocks run [P].
        disagreement: Rate at which answers differ from those of full depth [P].
        accuracy: Rate of right answers [P], or ``None`` without labels.
        rows: It was measured on.
    """

    name: str
    policy: Policy
    blocks: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    accuracy: NDArray[np.float64] | None
    rows: int


def baselines(readings: Readings, labels: NDArray[np.int64] | None) -> list[Curve]:
    """Fixed depth, leaving at random, and the oracle, which knows the answer of full depth.

    Leaving at random is an expectation, computed: at each depth with the same chance. The oracle
    leaves at the first depth that answers like full depth; allowed to err, it gives up the rows
    that would take it deepest.

    Args:
        readings: Answers by depth.
        labels: Classes [N], or ``None``.
    """
    count, depths = readings.labels.shape
    fixed = [judge(readings, labels, np.full(count, at)) for at in range(depths)]
    tossed = [at_random(readings, labels, chance) for chance in CHANCES]
    known = [oracle(readings, labels, share) for share in np.linspace(0, 0.5, 51)]
    return [
        _curve("fixed", "exit", fixed, labels, count),
        _curve("random", "exit", tossed, labels, count),
        _curve("oracle", "exit", known, labels, count),
    ]


def signal_curves(
    network: ResidualNetwork,
    decisions: Sequence[int],
    proposing: Tensor,
    sample: Sample,
    pooled: Tensor,
    exit_heads: ExitHeads,
    say: Callable[[str], None],
) -> list[Curve]:
    """Every signal under both policies, and random skipping; eager, without a guard.

    Signals are fitted on one half of ``proposing``, thresholds proposed on the other, and both
    measured on ``sample``.

    Args:
        network: In evaluation mode, not plain.
        decisions: Blocks run when each decision is taken.
        proposing: Rows [M, *inputs] that are not in ``sample``.
        sample: What is measured on.
        pooled: Its pooled streams [N, depth, width].
        exit_heads: What answers for rows that leave; who skips is answered by the network's own.
        say: Told what is being done.
    """
    fitting, proposing = proposing[::2], proposing[1::2]
    proposed = pooled_streams(network, proposing, BATCH)
    at = [blocks - 1 for blocks in decisions]
    few = sample.first(SKIP_ROWS)
    full = read_pooled(network, pooled[: len(few), -1:]).labels[:, 0]
    curves = []

    def fitted(config: RouterConfig) -> Router:
        return fit_router(config, network, decisions, fitting, proposing[:SKIP_ROWS])[0]

    heads: Sequence[nn.Module] = ()
    if exit_heads == "distilled":
        say("fitting heads")
        heads = fitted(RouterConfig(exit_heads=exit_heads, guard=1.0)).heads
    for name in SIGNALS:
        say(f"trying {name.replace('_', ' ')}")
        shared = fitted(RouterConfig(signal=name, guard=1.0))
        router = _answered_by(heads, shared) if heads else shared
        values = _signals(router.signals, proposed[:, at])
        seen = _signals(router.signals, pooled[:, at])
        calibration, measured = (_answers(network, router, one) for one in (proposed, pooled))
        points = []
        for share in np.geomspace(CAREFUL, BOLD, CANDIDATES):
            thresholds = greedy(values, calibration.agrees[:, :-1], share)
            last = np.ones((len(seen), 1), dtype=bool)
            stopped = np.append(stops(seen, thresholds), last, axis=1)
            points.append(judge(measured, sample.labels, stopped.argmax(axis=1)))
        curves.append(_curve(name, "exit", points, sample.labels, len(sample)))
        skipping = replace(shared, policy="skip")
        candidates = propose(network, skipping, proposing[:SKIP_ROWS], np.inf)[::-SKIP_EVERY]
        ran = list(_skipped(network, skipping, few, full, map(torch.from_numpy, candidates)))
        curves.append(_curve(name, "skip", ran, sample.labels, len(few)))
    say("trying random skipping")
    chooser = np.random.default_rng(0)
    shape = (len(few), len(decisions))
    drawn = (
        torch.from_numpy(np.where(chooser.random(shape) < chance, -np.inf, np.inf)).float()
        for chance in CHANCES
    )
    ran = list(_skipped(network, skipping, few, full, drawn))
    curves.append(_curve("random", "skip", ran, sample.labels, len(few)))
    return curves


def _answered_by(heads: Sequence[nn.Module], router: Router) -> Router:
    """The router with heads of its exits' own; those of its signals that read a head read these."""
    signals = [copy.deepcopy(signal) for signal in router.signals]
    for signal, head in zip(signals, heads, strict=True):
        if isinstance(signal, Margin | Confidence):
            signal.head = head
    return replace(router, signals=signals, heads=heads)


@torch.no_grad()
def _answers(network: ResidualNetwork, router: Router, pooled: Tensor) -> Readings:
    """What a row is answered that leaves at each decision, or at the end."""
    heads = [*(router.heads or [network.head] * len(router.decisions)), network.head]
    blocks = np.array([*router.decisions, network.config.depth])
    pairs = zip(heads, blocks, strict=True)
    labels = [head(pooled[:, block - 1]).argmax(dim=1) for head, block in pairs]
    return Readings(blocks, torch.stack(labels, dim=1).numpy())


@torch.no_grad()
def _signals(signals: Sequence[nn.Module], pooled: Tensor) -> NDArray[np.float32]:
    each = [signal(pooled[:, at]) for at, signal in enumerate(signals)]
    values: NDArray[np.float32] = torch.stack(each, dim=1).numpy()
    return values


@torch.no_grad()
def _skipped(
    network: ResidualNetwork,
    router: Router,
    sample: Sample,
    full: NDArray[np.int64],
    candidates: Iterator[Tensor],
) -> Iterator[Judged]:
    routed = RoutedNetwork(network, router)
    rows = torch.from_numpy(sample.inputs)
    off = torch.full((len(rows),), torch.inf)
    for thresholds in candidates:
        limits = thresholds.expand(len(rows), len(router.decisions))
        probabilities, depth, *_ = routed(rows, limits, off)
        answers = probabilities.argmax(dim=1).numpy()
        right = np.nan if sample.labels is None else (answers == sample.labels).mean()
        yield Judged(float(depth.float().mean()), float((answers != full).mean()), float(right))


def _curve(
    name: str,
    policy: Policy,
    points: Sequence[Judged],
    labels: NDArray[np.int64] | None,
    rows: int,
) -> Curve:
    order = sorted(points, key=lambda point: -point.blocks)
    return Curve(
        name,
        policy,
        np.array([point.blocks for point in order]),
        np.array([point.disagreement for point in order]),
        None if labels is None else np.array([point.accuracy for point in order]),
        rows,
    )
