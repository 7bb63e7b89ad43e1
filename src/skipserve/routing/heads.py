"""Exit heads: small networks distilled from the full-depth answer, without labels.

Distillation (Hinton et al., arXiv:1503.02531) at temperature 1, on the user's rows and on corrupted
copies of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skipserve.cores import torch_threads, usable_cores
from skipserve.routing.exits import Head

BATCH, EPOCHS = 512, 8
LEARNING_RATE, DECAY = 2e-3, 1e-2
# Few rows are shown more often, so that a head takes at least so many steps.
FEWEST_STEPS = 400
# So many rows are looked at together where all are.
PART = 4096


def fit_heads(
    features: Sequence[NDArray[np.float32]],
    targets: NDArray[np.float32],
    jobs: Sequence[tuple[int, int]],
    say: Callable[[str], None] = lambda line: None,
) -> dict[tuple[int, int], Head]:
    """Fit several heads, one a core at a time.

    Args:
        features: Of each cut [cuts][N, features]; may be memory maps.
        targets: Probabilities at full depth [N, width].
        jobs: Cut and width of the hidden layer of each head; 0 makes a linear one.
        say: Told about progress.
    """
    made: dict[tuple[int, int], Head] = {}

    def fit(job: tuple[int, int]) -> None:
        made[job] = fit_head(features[job[0]], targets, job[1])
        say(f"fitted head {len(made)} of {len(jobs)}")

    # Steps are short: a head is faster on one thread, and several heads on several.
    with torch_threads(1), ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(fit, jobs))
    return made


def fit_head(
    features: NDArray[np.float32], targets: NDArray[np.float32], hidden: int, seed: int = 0
) -> Head:
    """Fit one head to the features of one cut.

    Args:
        features: [N, features]; may be a memory map.
        targets: Probabilities at full depth [N, width].
        hidden: Width of the hidden layer; 0 makes a linear head.
        seed: Of weights and order.
    """
    random = torch.Generator().manual_seed(seed)
    rows = _finite_rows(features)
    y = torch.from_numpy(targets[rows])
    mean, deviation = _moments(features, rows)
    width = features.shape[1]
    sizes = [width, hidden, y.shape[1]] if hidden else [width, y.shape[1]]
    layers = [_layer(a, b, random) for a, b in pairwise(sizes)]
    head = nn.Sequential(*(one for layer in layers for one in (layer, nn.ReLU())))[:-1]
    epochs = max(EPOCHS, -(-FEWEST_STEPS * BATCH // len(rows)))
    steps = epochs * -(-len(rows) // BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), LEARNING_RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE * 2, steps)
    for _ in range(epochs):
        for index in torch.split(torch.randperm(len(rows), generator=random), BATCH):
            # Scaled as they are taken: a scaled copy of all would be several times the features.
            x = (torch.from_numpy(features[rows[index.numpy()]]) - mean) / deviation
            loss = nn.functional.cross_entropy(head(x.float()), y[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return _folded(layers, mean, deviation)


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
def _folded(layers: list[nn.Linear], mean: Tensor, deviation: Tensor) -> Head:
    """The layers with the scaling of the features in the first."""
    numbers: list[tuple[Any, Any]] = [(one.weight.T.double(), one.bias.double()) for one in layers]
    weight, bias = numbers[0]
    weight = weight / deviation[:, None]
    numbers[0] = (weight, bias - mean @ weight)
    return Head(tuple((w.float().numpy().copy(), b.float().numpy().copy()) for w, b in numbers))
