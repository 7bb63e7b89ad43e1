"""Judging the laboratory's routers on labelled rows: how deep they run, and what that costs.

Under the policy ``exit`` all of it follows from one pass at full depth: a row that leaves after
``d`` blocks answers what the head reads there. Decisions are taken after every block but the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor, nn

from laboratory.guard import Guard
from laboratory.routers import RoutedNetwork
from skipserve.networks import ResidualNetwork
from skipserve.routing import judge as judging
from skipserve.routing.judge import ByDepth
from skipserve.routing.propose import Observations, Thresholds
from skipserve.routing.propose import greedy as greedy_of
from skipserve.routing.stopping import first_stop


@dataclass(frozen=True)
class Reading:
    """One pass of a network at full depth over labelled rows.

    Attributes:
        pooled: Stream after each block [N, depth, width], float32.
        answers: What the head reads there [N, depth].
        distance: From calibration, as the guard sees it [N].
        labels: Classes [N].
    """

    pooled: Tensor
    answers: NDArray[np.int64]
    distance: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def readings(self) -> ByDepth:
        """The answers by depth."""
        depths = np.arange(1, self.answers.shape[1] + 1)
        agrees = self.answers == self.answers[:, -1:]
        return ByDepth(depths, agrees, self.answers == self.labels[:, None])

    @property
    def agrees(self) -> NDArray[np.bool_]:
        """Whether the answer after each block is that of full depth [N, depth]."""
        return self.readings.agrees

    @torch.no_grad()
    def by_heads(self, heads: Sequence[nn.Module]) -> Reading:
        """The same rows, every depth but the last read by a head of its own [depth − 1]."""
        early = [head(self.pooled[:, block]).argmax(dim=1) for block, head in enumerate(heads)]
        last = torch.from_numpy(self.answers[:, -1])
        return replace(self, answers=torch.stack([*early, last], dim=1).numpy())

    def signal(self, signals: Sequence[nn.Module]) -> NDArray[np.float32]:
        """The signals after each block but the last [N, depth − 1]."""
        with torch.no_grad():
            read = [signal(self.pooled[:, block]) for block, signal in enumerate(signals)]
        signal: NDArray[np.float32] = torch.stack(read, dim=1).numpy()
        return signal


@dataclass(frozen=True)
class Point:
    """What a router did to some rows, as shares.

    Attributes:
        run_rate: Blocks run.
        disagreement: Rows whose answer is not that of full depth.
        accuracy: Rows whose answer is their label.
        held_back: Rows the guard sent to full depth.
    """

    run_rate: float
    disagreement: float
    accuracy: float
    held_back: float = 0.0


@torch.no_grad()
def read(
    network: ResidualNetwork, guard: Guard, inputs: Tensor, labels: Tensor, batch_size: int = 1000
) -> Reading:
    """Run a network at full depth, keeping what routers look at.

    Args:
        network: In evaluation mode, float32.
        guard: Fitted to stand after the first block.
        inputs: Raw rows [N, *inputs].
        labels: Classes [N].
        batch_size: Rows in memory at a time.
    """
    pooled, distances = [], []
    for rows in torch.split(inputs, batch_size):
        streams = list(network.streams(rows))[1:]
        pooled.append(torch.stack([network.pool(stream) for stream in streams], dim=1))
        distances.append(guard(streams[0]))
    stack = torch.cat(pooled)
    answers = network.head(stack).argmax(dim=2)
    return Reading(stack, answers.numpy(), torch.cat(distances).numpy(), labels.numpy())


def depth_run(
    thresholds: Thresholds, signal: NDArray[np.float32], held: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Blocks run for each row [N] under the policy ``exit``.

    Args:
        thresholds: [depth − 1].
        signal: [N, depth − 1].
        held: Rows that run everything [N].
    """
    return first_stop(signal, thresholds, ~held[:, None]) + 1


def judge(
    reading: Reading, depth: NDArray[np.int64], held: NDArray[np.bool_] | None = None
) -> Point:
    """What becomes of rows that run ``depth`` [N] blocks each."""
    judged = judging.judge(reading.readings, depth - 1)
    return _point(reading, judged, 0.0 if held is None else float(held.mean()))


def at_random(reading: Reading, chance: float) -> Point:
    """The expectation for rows that leave at each decision with the same ``chance``."""
    return _point(reading, judging.at_random(reading.readings, chance))


def oracle(reading: Reading, rate: float) -> Point:
    """The fewest blocks that any exit needs if at most a share ``rate`` may disagree."""
    return _point(reading, judging.oracle(reading.readings, rate))


def _point(reading: Reading, judged: judging.StoppingResult, held_back: float = 0.0) -> Point:
    run_rate = judged.blocks / reading.answers.shape[1]
    return Point(run_rate, judged.disagreement, judged.accuracy, held_back)


def ranking(reading: Reading, signal: NDArray[np.float32]) -> float:
    """How well a signal tells rows that already agree from the rest: mean AUROC over decisions.

    0.5 is chance. Decisions where fewer than ten rows are on either side are left out; NaN if
    none is left.
    """
    areas = []
    for values, agrees in zip(signal.T, reading.agrees.T, strict=False):
        yes, no = int(agrees.sum()), int((~agrees).sum())
        if min(yes, no) >= 10:
            ranks = rankdata(values)[agrees].sum()
            areas.append((ranks - yes * (yes + 1) / 2) / (yes * no))
    return float(np.mean(areas)) if areas else float("nan")


@torch.no_grad()
def judge_routed(
    routed: RoutedNetwork, inputs: Tensor, reading: Reading, thresholds: Thresholds
) -> Point:
    """Run a routed network, without its guard, on the rows of a reading; for any policy."""
    answers, depths = [], []
    limits = torch.from_numpy(thresholds)
    for rows in torch.split(inputs, 1000):
        probabilities, depth, *_ = routed(
            rows, limits.expand(len(rows), -1), torch.full([len(rows)], torch.inf)
        )
        answers.append(probabilities.argmax(dim=1))
        depths.append(depth)
    labels = torch.cat(answers).numpy()
    return Point(
        run_rate=float(torch.cat(depths).double().mean() / sum(routed.depths)),
        disagreement=float((labels != reading.answers[:, -1]).mean()),
        accuracy=float((labels == reading.labels).mean()),
    )


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


@torch.no_grad()
def agrees_without(network: ResidualNetwork, inputs: Tensor) -> NDArray[np.bool_]:
    """Whether the answer stays if one block behind the first is left out [N, depth − 1]."""
    decisions, found = range(1, network.config.depth), []
    for rows in torch.split(inputs, 1000):
        streams = list(network.streams(rows))
        final = network.answer(streams[-1]).argmax(dim=1)
        answers = answers_without(network, decisions, streams)
        found.append(torch.stack(answers, dim=1) == final[:, None])
    return torch.cat(found).numpy()


def greedy(signal: NDArray[np.float32], agrees: NDArray[np.bool_], rate: float) -> Thresholds:
    """What the product proposes, of a signal and agreement [N, decisions], without a guard."""
    return greedy_of(seen(signal, agrees), rate)


def by_stage(signal: NDArray[np.float32], agrees: NDArray[np.bool_], rate: float) -> Thresholds:
    """For each stage by itself, the lowest threshold whose leavers disagree at most at ``rate``."""
    columns = [slice(at, at + 1) for at in range(signal.shape[1])]
    return np.concatenate([greedy(signal[:, one], agrees[:, one], rate) for one in columns])


def seen(signal: NDArray[np.float32], agrees: NDArray[np.bool_]) -> Observations:
    """The same rows as the product sees them, a decision after every block, all inside."""
    blocks = np.arange(1, signal.shape[1] + 2)
    return Observations(blocks, signal, agrees, np.ones_like(agrees))
