"""Where to decide: a decision is worth its time only if the stage behind it takes much longer."""

from __future__ import annotations

from time import perf_counter

import torch

from skipserve.networks import ResidualNetwork
from skipserve.routing.config import RouterConfig

# In ONNX Runtime on a CPU: pool, signal, comparison, two Compress and an If, for one row.
DECISION_S = 10e-6
# A stage shorter than this many decisions is joined with the next; a batch pays a decision once.
WORTH = 2.0


def choose_decisions(config: RouterConfig, network: ResidualNetwork) -> tuple[list[int], str]:
    """Blocks run when each decision is taken, and how they were chosen.

    ``auto`` measures the time of a block for one row and joins as many as make a stage of at
    least two decisions' time.
    """
    depth = network.config.depth
    if config.stages != "auto":
        return [block - 1 for block in config.stages], "as configured"
    block_s = _block_time(network)
    # Rounded to a power of two, so that a noisy clock seldom changes the graph.
    length = 1
    while length * block_s < WORTH * DECISION_S and length < depth // 2:
        length *= 2
    decisions = list(range(length, depth, length))
    return decisions, (
        f"{length} block(s) a stage: a block takes {block_s * 1e6:.0f} µs for one row, a decision "
        f"about {DECISION_S * 1e6:.0f} µs, and a stage should take {WORTH:g} decisions' time"
    )


@torch.no_grad()
def _block_time(network: ResidualNetwork, rows: int = 32, repeats: int = 7) -> float:
    # Over a batch, as eager PyTorch's cost of a call would drown that of one row.
    stream = network.stem(network.scaling(torch.zeros(rows, *network.config.inputs)))
    times = []
    for _ in range(repeats):
        start = perf_counter()
        for block in network.blocks:
            block(stream)
        times.append((perf_counter() - start) / len(network.blocks) / rows)
    return sorted(times)[repeats // 2]
