"""Where to decide: a decision is worth its time only if it lets enough rows leave."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from skipserve.cores import torch_threads
from skipserve.networks import ResidualNetwork
from skipserve.routing.config import RouterConfig
from skipserve.routing.propose import greedy
from skipserve.routing.stopping import stops

# In ONNX Runtime on a CPU, one row: pool, signal, comparison, two Compress and an If; and an If
# whose stage has no row to run (benchmarks/depth.py).
DECISION_S, IDLE_S = 8e-6, 3e-6
# A stage shorter than this many decisions is joined with the next; a batch pays a decision once.
WORTH = 2.0
# More decisions than this are not weighed against each other: every other one goes first.
MOST = 24
# Rate of disagreement at which decisions are compared.
RATE = 0.01


def choose_decisions(config: RouterConfig, network: ResidualNetwork) -> tuple[list[int], str]:
    """Blocks run when each decision is taken, and how they were chosen.

    ``auto`` measures the time of a block for one row and joins as many as make a stage of at
    least two decisions' time.
    """
    depth = network.config.depth
    if config.stages != "auto":
        return [block - 1 for block in config.stages], "as configured"
    block_s = block_time(network)
    # Rounded to a power of two, so that a noisy clock seldom changes the graph.
    length = 1
    while length * block_s < WORTH * DECISION_S and length < depth // 2:
        length *= 2
    decisions = list(range(length, depth, length))
    return decisions, (
        f"{length} block(s) a stage: a block takes {block_s * 1e6:.0f} µs for one row, a decision "
        f"about {DECISION_S * 1e6:.0f} µs, and a stage should take {WORTH:g} decisions' time"
    )


def thin_decisions(
    decisions: Sequence[int],
    signal: NDArray[np.float32],
    agrees: NDArray[np.bool_],
    depth: int,
    block_s: float,
) -> tuple[list[int], str]:
    """Drop decisions of an ``exit`` router, worst first, while that makes a lone row faster.

    The time of a row is that of the blocks it runs, of the decisions it gets to, and of those it
    does not; which blocks it runs follows from thresholds searched for each set of decisions.

    Args:
        decisions: To choose from: blocks run when each is taken.
        signal: [N, decisions].
        agrees: Whether the answer there is that of full depth [N, decisions].
        depth: Of the network.
        block_s: Time of one block for one row, in seconds.

    Returns:
        What is left, and how it was chosen.
    """
    # Rounded to a power of two, so that a noisy clock seldom changes the graph.
    block_s = 2.0 ** round(math.log2(block_s))
    kept = list(range(len(decisions)))
    while len(kept) > MOST:
        kept = kept[::2]

    def row_s(columns: list[int]) -> float:
        chosen = signal[:, columns]
        thresholds = greedy(chosen, agrees[:, columns], RATE)
        stopped = stops(chosen, thresholds)
        where = np.where(stopped.any(axis=1), stopped.argmax(axis=1), len(columns))
        blocks = np.array([*(decisions[i] for i in columns), depth])[where]
        taken = np.minimum(where + 1, len(columns))
        cost = blocks * block_s + taken * DECISION_S + (len(columns) - taken) * IDLE_S
        return float(cost.mean())

    best = whole = row_s(kept)
    while len(kept) > 1:
        fewer = [[i for i in kept if i != out] for out in kept]
        times = [row_s(columns) for columns in fewer]
        if min(times) >= best:
            break
        best, kept = min(times), fewer[int(np.argmin(times))]
    return [decisions[i] for i in kept], (
        f"{len(kept)} of {len(decisions)} decisions: a lone row takes about {best * 1e6:.0f} µs at "
        f"{RATE:.0%} disagreement, with all of them {whole * 1e6:.0f}; a block takes "
        f"{block_s * 1e6:.0f} µs, a decision {DECISION_S * 1e6:.0f}, one not got to "
        f"{IDLE_S * 1e6:.0f}"
    )


@torch.no_grad()
def block_time(network: ResidualNetwork, rows: int = 32, repeats: int = 7) -> float:
    """Fewest seconds that a block takes for one row on one core, as it serves, here and now."""
    # Over a batch, as eager PyTorch's cost of a call would drown that of one row.
    stream = network.stem(network.scaling(torch.zeros(rows, *network.config.inputs)))
    times = []
    with torch_threads(1):
        for _ in range(repeats):
            start = perf_counter()
            for block in network.blocks:
                block(stream)
            times.append((perf_counter() - start) / len(network.blocks) / rows)
    return min(times)
