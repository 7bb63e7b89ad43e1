"""Exit heads: small networks distilled from the full-depth answer, without labels.

Distillation (Hinton et al., arXiv:1503.02531) at temperature 1, on the user's rows and on corrupted
copies of them. Beside a head may stand an *estimate*: a small network that learns on which rows the
head agrees with full depth. What it learns from are heads that have not seen those rows, or a head
that knows its rows by heart would seem to agree everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.cores import torch_threads, usable_cores
from skipserve.routing.exits import Head
from skipserve.tasks import Link, Task

BATCH, EPOCHS = 512, 8
LEARNING_RATE, DECAY = 2e-3, 1e-2
# Few rows are shown more often, so that a head takes at least so many steps.
FEWEST_STEPS = 400
# Numbers are to be hit and not only told apart: further to go, and more steps for it.
TO_HIT: tuple[Link, ...] = ("identity", "unit")
FASTER, MORE_STEPS = 5, 3
# So many rows are looked at together where all are.
PART = 4096
# So many are enough to see how large numbers are.
MOMENTS = 10_000
# Hidden layer of the estimate beside a linear head.
ESTIMATE_HIDDEN = 32


@dataclass(frozen=True)
class FittedHead:
    """A head, and what estimates where it agrees; ``None`` where nobody asks."""

    head: Head
    estimate: Head | None = None


def fit_heads(
    features: Sequence[NDArray[np.float32]],
    answers: NDArray[np.float32],
    task: Task,
    jobs: Sequence[tuple[int, int]],
    estimated: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> dict[tuple[int, int], FittedHead]:
    """Fit several heads, one a core at a time.

    Args:
        features: Of each cut [cuts][N, features]; may be memory maps.
        answers: At full depth [N, width].
        task: What they are.
        jobs: Cut and width of the hidden layer of each head; 0 makes a linear one.
        estimated: Whether each gets an estimate of where it agrees.
        say: Told about progress.
    """
    made: dict[tuple[int, int], FittedHead] = {}
    targets = task.targets(answers)

    def fit(job: tuple[int, int]) -> None:
        cut, hidden = job
        head = fit_head(features[cut], targets, hidden, link=task.link)
        estimate = fit_estimate(features[cut], answers, task, hidden) if estimated else None
        made[job] = FittedHead(head, estimate)
        say(f"fitted head {len(made)} of {len(jobs)}")

    # Steps are short: a head is faster on one thread, and several heads on several.
    with torch_threads(1), ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(fit, jobs))
    return made


def fit_estimate(
    features: NDArray[np.float32], answers: NDArray[np.float32], task: Task, hidden: int
) -> Head:
    """Fit what tells on which rows a head agrees: each half of the rows by a head of the other.

    Args:
        features: Of one cut [N, features]; may be a memory map.
        answers: At full depth [N, width].
        task: What they are.
        hidden: Width of the head's hidden layer; a linear head gets an estimate with one, for where
            it errs is no matter of a side.
    """
    order = np.random.default_rng(0).permutation(len(answers))
    agrees = np.zeros((len(answers), 1), np.float32)
    for half, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        head = fit_head(features, task.targets(answers), hidden, link=task.link, among=other)
        for start in range(0, len(half), PART):
            some = half[start : start + PART]
            with np.errstate(all="ignore"):  # rows that overflow agree with nothing
                served = linked(task.link, head(features[some]))
            agrees[some, 0] = task.agree(served, answers[some])
    return fit_head(features, agrees, hidden or ESTIMATE_HIDDEN, link="sigmoid")


def linked(link: Link, given: NDArray[np.float32]) -> NDArray[np.float32]:
    """The answers that a head's numbers [N, width] stand for, as the graphs compute them."""
    value = torch.from_numpy(given)
    if link == "softmax":
        value = value.softmax(dim=-1)
    elif link == "sigmoid":
        value = value.sigmoid()
    elif link == "unit":
        value = nn.functional.normalize(value, dim=-1)
    answers: NDArray[np.float32] = value.numpy()
    return answers


def fit_head(
    features: NDArray[np.float32],
    targets: NDArray[np.float32],
    hidden: int,
    seed: int = 0,
    link: Link = "softmax",
    among: NDArray[np.int64] | None = None,
) -> Head:
    """Fit one head to the features of one cut.

    Args:
        features: [N, features]; may be a memory map.
        targets: Answers at full depth [N, width].
        hidden: Width of the hidden layer; 0 makes a linear head.
        seed: Of weights and order.
        link: Makes answers of what the head gives, and says which loss it is fitted with.
        among: The rows to fit on; all by default.
    """
    random = torch.Generator().manual_seed(seed)
    rows = _finite_rows(features)
    rows = rows[np.isfinite(targets[rows]).all(axis=1)]
    if among is not None:
        rows = np.intersect1d(rows, among)
    y, centre, scale = _scaled(torch.from_numpy(targets[rows]), link)
    mean, deviation = _moments(features, rows)
    width = features.shape[1]
    sizes = [width, hidden, y.shape[1]] if hidden else [width, y.shape[1]]
    layers = [_layer(a, b, random) for a, b in pairwise(sizes)]
    head = nn.Sequential(*(one for layer in layers for one in (layer, nn.ReLU())))[:-1]
    rate, fewest = LEARNING_RATE, FEWEST_STEPS
    if link in TO_HIT:
        rate, fewest = rate * FASTER, fewest * MORE_STEPS
    epochs = max(EPOCHS, -(-fewest * BATCH // len(rows)))
    steps = epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate * 2, steps)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(rows), generator=random), BATCH):
            # Scaled as they are taken: a scaled copy of all would be several times the features.
            x = (torch.from_numpy(features[rows[index.numpy()]]) - mean) / deviation
            loss = _LOSSES[link](head(x.float()), y[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return _folded(layers, mean, deviation, centre, scale)


def _scaled(y: Tensor, link: Link) -> tuple[Tensor, Tensor, float]:
    """Targets as a head learns them: numbers of no known size about 0 and in units of their spread.

    Of the middle of the rows, for those that are corrupted may lie anywhere. One unit for all
    numbers of an answer: a tolerance, or an angle, is one for all of them too.
    """
    centre = torch.zeros(y.shape[1])
    if link != "identity":
        return y, centre, 1.0
    low, middle, high = np.quantile(y[:MOMENTS].numpy(), (0.05, 0.5, 0.95), axis=0)
    centre = torch.from_numpy(middle.astype(np.float32))
    scale = float((high - low).max()) / 4
    scale = scale if scale > 0 else 1.0
    return (y - centre) / scale, centre, scale


def _apart(given: Tensor, y: Tensor) -> Tensor:
    """One minus the cosine."""
    loss: Tensor = (1 - nn.functional.cosine_similarity(given, y, dim=-1)).mean()
    return loss


# Rows far from all others may differ by any amount: what they count for grows no faster than that.
_LOSSES: dict[Link, Callable[[Tensor, Tensor], Tensor]] = {
    "softmax": nn.functional.cross_entropy,
    "sigmoid": nn.functional.binary_cross_entropy_with_logits,
    "identity": nn.functional.smooth_l1_loss,
    "unit": _apart,
}


def _parts(features: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(features), PART):
        yield features[start : start + PART]


def _finite_rows(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """Which rows did not overflow: those that did teach nothing."""
    found = [np.isfinite(part).all(axis=1) for part in _parts(features)]
    return np.flatnonzero(np.concatenate(found))


def _moments(features: NDArray[np.float32], rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature over some rows, float64: squares may lie beyond FP32."""

    def mean_of(of: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
        sums = [
            of(features[rows[start : start + PART]].astype(np.float64)).sum(axis=0)
            for start in range(0, len(rows), PART)
        ]
        mean: NDArray[np.float64] = np.sum(sums, axis=0) / len(rows)
        return mean

    mean = mean_of(lambda part: part)
    deviation = np.sqrt(mean_of(lambda part: (part - mean) ** 2))
    deviation = np.where(deviation > 1e-6, deviation, 1.0)
    return torch.from_numpy(mean), torch.from_numpy(deviation)


def _layer(inputs: int, outputs: int, random: torch.Generator) -> nn.Linear:
    # Not drawn from the global generator: heads are fitted side by side.
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = inputs**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=random)
        layer.bias.uniform_(-bound, bound, generator=random)
    return layer


@torch.no_grad()
def _folded(
    layers: list[nn.Linear], mean: Tensor, deviation: Tensor, centre: Tensor, scale: float
) -> Head:
    """The layers with the scaling of the features in the first, and of the answers in the last."""
    numbers: list[tuple[Any, Any]] = [(one.weight.T.double(), one.bias.double()) for one in layers]
    weight, bias = numbers[0]
    weight = weight / deviation[:, None]
    numbers[0] = (weight, bias - mean @ weight)
    weight, bias = numbers[-1]
    numbers[-1] = (weight * scale, bias * scale + centre)
    return Head(tuple((w.float().numpy().copy(), b.float().numpy().copy()) for w, b in numbers))
