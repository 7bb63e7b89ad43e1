"""Proposing: thresholds ordered from careful to bold. Anything goes; nothing is promised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.networks import ResidualNetwork
from skipserve.routing.routed import Router
from skipserve.routing.stopping import stops

CANDIDATES = 24
# Rates of disagreement among the rows that leave at one decision.
CAREFUL, BOLD = 5e-4, 0.15
# Under ``skip`` every row is run again for every stage.
MOST_ROWS_SKIPPING = 5_000
# Shares of the rows that leave a stage out, in its first candidates.
FEW = (0.005, 0.02, 0.08, 0.3)

Thresholds = NDArray[np.float32]


def propose(
    network: ResidualNetwork, router: Router, inputs: Tensor, guard_limit: float
) -> list[Thresholds]:
    """Candidates for a router, from careful to bold.

    Args:
        network: Trained, in evaluation mode.
        router: Fitted to it.
        inputs: Raw rows [N, *inputs] that are not used to certify.
        guard_limit: Rows beyond it run everything, whatever the thresholds.

    Returns:
        At most 24 vectors [decisions], float32; +inf never stops a row.
    """
    if router.policy == "skip":
        inputs = inputs[:MOST_ROWS_SKIPPING]
    signal, agrees = read_signals(network, router, inputs, guard_limit)
    if router.policy == "skip":
        rates = np.geomspace(CAREFUL, BOLD, CANDIDATES - len(FEW))
        found = [by_stage(signal, agrees, rate) for rate in rates]
        # Stages left out together may err where none does alone: begin with few of the rows.
        few = [np.maximum(found[0], _reached_by(signal, share)) for share in FEW]
        return _distinct([*few, *found])
    depths = np.array([*router.decisions, network.config.depth])
    return _frontier(
        [greedy(signal, agrees, rate) for rate in np.geomspace(CAREFUL, BOLD, CANDIDATES)],
        signal,
        agrees,
        depths,
    )


@torch.no_grad()
def read_signals(
    network: ResidualNetwork, router: Router, inputs: Tensor, guard_limit: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """What the router would see of the rows that its guard lets pass, if all got to the end.

    Returns:
        The signal at each decision [M, decisions], and whether a row that stops there is
        answered as at full depth [M, decisions]: it leaves under the policy ``exit``, under
        ``skip`` it leaves out this one stage.
    """
    heads = router.heads or [network.head for _ in router.decisions]
    signals, agrees = [], []
    for rows in torch.split(inputs, 1000):
        streams = list(network.streams(rows))
        familiar = router.guard(streams[router.decisions[0]]) <= guard_limit
        final = network.answer(streams[-1]).argmax(dim=1)
        read = [network.pool(streams[blocks]) for blocks in router.decisions]
        signal = [one(pooled) for one, pooled in zip(router.signals, read, strict=True)]
        if router.policy == "skip":
            answers = answers_without(network, router.decisions, streams)
        else:
            pairs = zip(heads, read, strict=True)
            answers = [head(pooled).argmax(dim=1) for head, pooled in pairs]
        signals.append(torch.stack(signal, dim=1)[familiar])
        agrees.append((torch.stack(answers, dim=1) == final[:, None])[familiar])
    return torch.cat(signals).numpy(), torch.cat(agrees).numpy()


@torch.no_grad()
def first_and_last(
    network: ResidualNetwork, router: Router, inputs: Tensor, guard_limit: float
) -> tuple[int, int] | None:
    """The row that leaves first and the one that leaves last, whatever the thresholds nearly are.

    Args:
        network: In evaluation mode.
        router: Fitted to it.
        inputs: Raw rows [N, *inputs].
        guard_limit: Rows beyond it are not considered.

    Returns:
        Their places: the highest signal at the first decision, and the lowest at best; ``None``
        where fewer than two rows are familiar.
    """
    streams = list(network.streams(inputs))
    distance = router.guard(streams[router.decisions[0]])
    familiar = torch.nonzero(distance <= guard_limit).squeeze(1)
    if len(familiar) < 2:
        return None
    read = [network.pool(streams[blocks])[familiar] for blocks in router.decisions]
    signal = torch.stack(
        [one(pooled) for one, pooled in zip(router.signals, read, strict=True)], dim=1
    )
    first, last = int(signal[:, 0].argmax()), int(signal.max(dim=1).values.argmin())
    return int(familiar[first]), int(familiar[last])


@torch.no_grad()
def answers_without(
    network: ResidualNetwork, decisions: Sequence[int], streams: Sequence[Tensor]
) -> list[Tensor]:
    """What a network answers if one stage alone is left out.

    Args:
        network: In evaluation mode.
        decisions: Blocks run when each decision is taken; a stage lies behind each.
        streams: Of some rows, after the stem and after every block [depth + 1][B, …].

    Returns:
        Classes by stage [decisions][B], int64.
    """
    ends = (*decisions[1:], network.config.depth)
    answers = []
    for start, end in zip(decisions, ends, strict=True):
        stream = streams[start]
        for block in network.blocks[end:]:
            stream = block(stream)
        answers.append(network.answer(stream).argmax(dim=1))
    return answers


def greedy(signal: NDArray[np.float32], agrees: NDArray[np.bool_], rate: float) -> Thresholds:
    """Going down the depths, the lowest threshold whose leavers disagree at most at ``rate``.

    Args:
        signal: [N, decisions].
        agrees: Whether the answer there is that of full depth [N, decisions].
        rate: Of disagreement among the rows that leave at one decision.

    Returns:
        Thresholds [decisions].
    """
    stays = np.ones(len(signal), dtype=bool)
    thresholds = np.full(signal.shape[1], np.inf, dtype=np.float32)
    for decision in range(signal.shape[1]):
        if not stays.any():
            break
        thresholds[decision] = _lowest(signal[stays, decision], agrees[stays, decision], rate)
        stays &= ~stops(signal[:, decision], thresholds[decision])
    return thresholds


def by_stage(signal: NDArray[np.float32], agrees: NDArray[np.bool_], rate: float) -> Thresholds:
    """For each stage by itself, the lowest threshold whose leavers disagree at most at ``rate``.

    Args:
        signal: [N, decisions].
        agrees: Whether the answer stays if this stage alone is left out [N, decisions].
        rate: Of disagreement among the rows that leave a stage out.

    Returns:
        Thresholds [decisions].
    """
    pairs = zip(signal.T, agrees.T, strict=True)
    return np.array([_lowest(values, right, rate) for values, right in pairs], np.float32)


def _lowest(values: NDArray[np.float32], right: NDArray[np.bool_], rate: float) -> float:
    """The lowest threshold [N] at which at most ``rate`` of the rows that reach it are wrong."""
    finite = np.isfinite(values)  # the others never stop
    values, right = values[finite], right[finite]
    order = np.argsort(-values, kind="stable")
    wrong = np.cumsum(~right[order])
    allowed = wrong <= rate * np.arange(1, len(order) + 1)
    # Equal signals leave together or not at all.
    last_of_ties = np.append(np.diff(values[order]) != 0, True)
    fits = np.flatnonzero(allowed & last_of_ties)
    return float(values[order[fits[-1]]]) if len(fits) else float("inf")


def _reached_by(signal: NDArray[np.float32], share: float) -> Thresholds:
    """Of each decision [N, decisions], the threshold that this share of the rows reaches."""
    columns = [column[np.isfinite(column)] for column in signal.T]
    found = [np.quantile(column, 1 - share) if len(column) else np.inf for column in columns]
    return np.array(found, np.float32)


def simulate(
    thresholds: Thresholds,
    signal: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    depths: NDArray[np.int64],
) -> tuple[float, float]:
    """Rate of disagreement and mean depth of the ``exit`` policy, from precomputed signals.

    Args:
        thresholds: [decisions].
        signal: [N, decisions].
        agrees: [N, decisions].
        depths: Blocks run at each decision, and at the end [decisions + 1].
    """
    stopped = stops(signal, thresholds)
    where = np.where(stopped.any(axis=1), stopped.argmax(axis=1), len(thresholds))
    right = np.append(agrees, np.ones((len(agrees), 1), dtype=bool), axis=1)
    wrong = ~np.take_along_axis(right, where[:, None], axis=1)[:, 0]
    return float(wrong.mean()), float(depths[where].mean())


def _frontier(
    candidates: Sequence[Thresholds],
    signal: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    depths: NDArray[np.int64],
) -> list[Thresholds]:
    # One that disagrees more must run less, or nobody would want it.
    outcomes = [(*simulate(one, signal, agrees, depths), one) for one in candidates]
    kept: list[Thresholds] = []
    least = float("inf")
    for _, depth, one in sorted(outcomes, key=lambda outcome: outcome[:2]):
        if depth < least:
            kept.append(one)
            least = depth
    return kept


def _distinct(candidates: Sequence[Thresholds]) -> list[Thresholds]:
    return [np.array(one, np.float32) for one in dict.fromkeys(map(tuple, candidates))]
