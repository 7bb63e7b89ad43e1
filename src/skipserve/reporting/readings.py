"""Readings: the answers of a model at each depth, and the effect of its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skipserve.cores import torch_threads
from skipserve.networks import ResidualNetwork
from skipserve.routing.judge import ByDepth
from skipserve.runtime.engine import Engine
from skipserve.runtime.rows import Rows
from skipserve.tasks import Classify, Task, Units

BATCH = 500
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Reading:
    """Answers of N rows at D depths, the last of them full depth.

    Attributes:
        task: What an answer is.
        blocks: Blocks run at each depth [D], int64, increasing.
        answers: [N, D, width], float32.
        signals: What the router reads at each depth but the last, by name [N, D − 1].
        streams: The stream there, averaged over positions [N, D, width]; of networks in PyTorch.
    """

    task: Task
    blocks: NDArray[np.int64]
    answers: Floats
    signals: Mapping[str, Floats] = field(default_factory=dict)
    streams: Floats | None = None

    def by_depth(self, labels: NDArray[np.int64] | None = None) -> ByDepth:
        """Agreement and accuracy of single answers by depth, whatever the task counts.

        Args:
            labels: The true ones, if they are known.
        """
        task, answers = self.task, np.moveaxis(self.answers, 1, 0)
        agrees = np.stack([task.agree(one, answers[-1]) for one in answers], axis=1)
        right = None
        if labels is not None:
            right = np.stack([task.right(one, labels) for one in answers], axis=1)
        return ByDepth(self.blocks, agrees, right)

    def by_unit(self, units: Units, labels: NDArray[np.int64] | None = None) -> ByDepth:
        """The same of what the task counts, which can be compared with ε.

        Args:
            units: Of the rows.
            labels: The true ones, if they are known.
        """
        rows = self.by_depth(labels)
        if self.task.top is None:
            return rows
        alone = units.agree_alone_by_depth(self.answers)
        return ByDepth(self.blocks, alone, rows.right, units.agree_by_depth(self.answers))

    @property
    def one_answer(self) -> bool:
        """Whether all rows have the same answer at full depth."""
        full = self.answers[:, -1]
        return bool(self.task.agree(full, np.broadcast_to(full[:1], full.shape)).all())

    def __getitem__(self, index: slice) -> Reading:
        """The same of some rows."""
        return Reading(
            self.task,
            self.blocks,
            self.answers[index],
            {name: values[index] for name, values in self.signals.items()},
            None if self.streams is None else self.streams[index],
        )


@dataclass(frozen=True)
class Blocks:
    """Mean effect of L blocks on the residual stream, over rows.

    Attributes:
        norm: ‖x‖₂ after the stem and after each block [L + 1].
        update: ‖x′ − x‖₂ / ‖x‖₂ of each block [L].
        influence: 1 − cos(x, x′) of each block [L] (ShortGPT, arXiv:2403.03853, section 3.1).
    """

    norm: NDArray[np.float64]
    update: NDArray[np.float64]
    influence: NDArray[np.float64]


@torch.no_grad()
def read_network(network: ResidualNetwork, rows: Floats) -> Reading:
    """Read the head before the first block and after every one.

    Args:
        network: In evaluation mode.
        rows: [N, *inputs].
    """
    blocks = np.arange(network.config.depth + 1)
    streams = _streams(network, rows, blocks)
    answers = network.head(torch.from_numpy(streams)).float().softmax(dim=-1)
    task = Classify(classes=network.config.classes)
    return Reading(task, blocks, answers.numpy(), streams=streams)


def with_streams(reading: Reading, network: ResidualNetwork, rows: Floats) -> Reading:
    """A reading of the served files with the streams of their network, rows [N, *inputs]."""
    return replace(reading, streams=_streams(network, rows, reading.blocks))


@torch.no_grad()
def _streams(network: ResidualNetwork, rows: Floats, blocks: NDArray[np.int64]) -> Floats:
    parts = []
    for batch in torch.split(torch.from_numpy(rows), BATCH):
        streams = list(network.streams(batch))
        parts.append(torch.stack([network.pool(streams[at]) for at in blocks], dim=1))
    made: Floats = torch.cat(parts).numpy()
    return made


def read_engine(engine: Engine, rows: Rows, batch_size: int) -> Reading:
    """Read every exit of an artifact, and full depth.

    Under the policy ``skip``, which reads no answers on the way, every row is stopped at each
    decision in turn.

    Args:
        engine: Of an artifact with a router.
        rows: N of them.
        batch_size: Rows that run together.
    """
    spec = engine.manifest.router
    assert spec is not None
    task, blocks = engine.manifest.task, np.array([*spec.decisions, engine.manifest.depth])
    if spec.policy == "exit" and engine.backend == "onnxruntime":
        read = engine.read(rows, batch_size)
        return Reading(task, blocks, read.answers, {spec.signal: read.signals})
    fixed = [engine.fixed(at) for at in range(len(spec.decisions))]
    answers = [
        engine.run_batches(rows, setting, batch_size).answers for setting in (*fixed, engine.off)
    ]
    return Reading(task, blocks, np.stack(answers, axis=1))


@torch.no_grad()
def measure_blocks(network: ResidualNetwork, rows: Floats) -> Blocks:
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


@torch.no_grad()
def block_time(network: ResidualNetwork, rows: int = 32, repeats: int = 70) -> float:
    """Fewest seconds that a block takes for one row on one core, here and now."""
    # Over a batch, as eager PyTorch's cost of a call would drown that of one row. Other work on
    # the machine only ever makes a block look slower: the fastest counts.
    stream = network.stem(network.scaling(torch.zeros(rows, *network.config.inputs)))
    times = []
    with torch_threads(1):
        for _ in range(repeats):
            start = perf_counter()
            for block in network.blocks:
                block(stream)
            times.append((perf_counter() - start) / len(network.blocks) / rows)
    return min(times)
