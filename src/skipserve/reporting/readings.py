"""What a network would answer if it stopped after each block, and what its blocks do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.networks import ResidualNetwork
from skipserve.routing.fit import pooled_streams
from skipserve.routing.judge import Readings
from skipserve.runtime.engine import Engine
from skipserve.runtime.prediction import Setting

BATCH = 500


@dataclass(frozen=True)
class Blocks:
    """Means over rows of what L blocks do to the residual stream, each row's stream taken whole.

    Attributes:
        norm: ‖x‖₂ after the stem and after each block [L + 1].
        update: ‖x′ − x‖₂ / ‖x‖₂ of each block [L].
        influence: 1 − cos(x, x′) of each block [L] (ShortGPT, arXiv:2403.03853, section 3.1).
    """

    norm: NDArray[np.float64]
    update: NDArray[np.float64]
    influence: NDArray[np.float64]


def read_network(network: ResidualNetwork, rows: NDArray[np.float32]) -> Readings:
    """Read the head after every block.

    Args:
        network: In evaluation mode.
        rows: [N, *inputs].
    """
    return read_pooled(network, pooled_streams(network, torch.from_numpy(rows), BATCH))


@torch.no_grad()
def read_pooled(network: ResidualNetwork, pooled: Tensor) -> Readings:
    """The same from pooled streams [N, depth, width]."""
    labels: NDArray[np.int64] = network.head(pooled).argmax(dim=-1).numpy()
    return Readings(np.arange(1, network.config.depth + 1), labels)


def read_engine(engine: Engine, rows: NDArray[np.float32], batch_size: int) -> Readings:
    """Stop every row at each decision of an artifact's router, and at full depth.

    Args:
        engine: Of an artifact with a router.
        rows: [N, *inputs].
        batch_size: Rows that run together.
    """
    spec = engine.manifest.router
    assert spec is not None
    fixed = [fixed_setting(engine, at) for at in range(len(spec.decisions))]
    columns = [
        engine.run_batches(rows, setting, batch_size).labels for setting in (*fixed, engine.off)
    ]
    blocks = np.array([*spec.decisions, engine.manifest.depth])
    return Readings(blocks, np.stack(columns, axis=1))


def fixed_setting(engine: Engine, decision: int) -> Setting:
    """The setting at which every row stops at one decision."""
    thresholds = engine.off.thresholds.copy()
    # Under ``skip`` a stage that is left out does not end the row: the later ones must go too.
    thresholds[decision:] = -np.inf
    return Setting(thresholds, np.inf)


@torch.no_grad()
def measure_blocks(network: ResidualNetwork, rows: NDArray[np.float32]) -> Blocks:
    """Run rows [N, *inputs] and watch their streams.

    Args:
        network: In evaluation mode.
        rows: [N, *inputs].
    """
    depth = network.config.depth
    norm, update, influence = np.zeros(depth + 1), np.zeros(depth), np.zeros(depth)
    for batch in torch.split(torch.from_numpy(rows), BATCH):
        before: Tensor | None = None
        for block, stream in enumerate(network.streams(batch)):
            after = stream.flatten(1).double()
            norm[block] += float(torch.linalg.vector_norm(after, dim=1).sum())
            if before is not None:
                length = torch.linalg.vector_norm(before, dim=1)
                change = torch.linalg.vector_norm(after - before, dim=1)
                cosine = torch.cosine_similarity(before, after, dim=1)
                # A stream of zeros has no direction and no relative change.
                update[block - 1] += float((change / length.clamp(min=1e-12)).sum())
                influence[block - 1] += float((1 - cosine).sum())
            before = after
    count = len(rows)
    return Blocks(norm / count, update / count, influence / count)
