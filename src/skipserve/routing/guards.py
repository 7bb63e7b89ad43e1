"""Guards: unfamiliar rows are never skipped.

One stands at every cut from depth 0 on, and they accumulate: any single one lets some constant or
some noise pass (docs/any-network.md).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.exits import Guard

# Share of the mean variance added in every direction before it is divided by.
RIDGE = 1e-3
# Least variance, for constant features; its root has an inverse in FP32.
SMALLEST = 1e-36
# Wider features are first projected at random to so many numbers (Johnson and Lindenstrauss, 1984):
# a square matrix would cost as much as a block.
WIDEST = 1024
# Whitened directions are then mixed at random into so many: lengths stay within a few percent, and
# what is held back within a percent or two of the rows; all of them cost as much as a block.
MOST_DIRECTIONS = 256
MOST_ROWS = 20_000
# Rows of a chunk; in FP64 all rows would take several times the memory of the features.
PART = 4096


def fit_guard(features: NDArray[np.float32], seed: int = 0) -> Guard:
    """Fit a guard: whiten the features of known rows.

    Args:
        features: Of uncorrupted rows [N, features].
        seed: Of the projections, where there are any.
    """
    width = features.shape[1]
    count = sum(len(part) for part in _finite(features))
    centre = np.sum([part.sum(axis=0) for part in _finite(features)], axis=0) / count
    project = None
    if width > WIDEST:
        random = np.random.default_rng(seed)
        project = random.standard_normal((width, WIDEST)) / np.sqrt(WIDEST)
    size = min(width, WIDEST)
    covariance = np.zeros((size, size))
    for part in _finite(features):
        part = part - centre if project is None else (part - centre) @ project
        covariance += part.T @ part
    covariance /= max(count - 1, 1)
    ridge = max(RIDGE * np.trace(covariance) / len(covariance), SMALLEST)
    covariance += ridge * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whiten = vectors / np.sqrt(values)
    if project is not None:
        whiten = project @ whiten
    if whiten.shape[1] > MOST_DIRECTIONS:
        random = np.random.default_rng(seed + 1)
        mixing = random.standard_normal((whiten.shape[1], MOST_DIRECTIONS))
        whiten = whiten @ (mixing / np.sqrt(MOST_DIRECTIONS))
    return Guard(centre.astype(np.float32), whiten.astype(np.float32))


def _finite(features: NDArray[np.float32]) -> Iterator[NDArray[np.float64]]:
    """Rows without overflow, in chunks, in FP64."""
    for start in range(0, min(len(features), MOST_ROWS), PART):
        part = np.asarray(features[start : min(start + PART, MOST_ROWS)], dtype=np.float64)
        yield part[np.isfinite(part).all(axis=1)]


def limits(distances: NDArray[np.float32], quantile: float) -> NDArray[np.float64]:
    """Limits of several guards that together hold back a given share of ordinary rows.

    Args:
        distances: Of rows that no guard was fitted to, at each cut [N, cuts].
        quantile: Share of the rows that are inside at every cut; 1 makes every limit the largest
            distance seen.
    """
    ranks = distances.argsort(axis=0).argsort(axis=0).max(axis=1)
    place = int(np.quantile(ranks, quantile, method="higher"))
    found: NDArray[np.float64] = np.sort(distances, axis=0)[place].astype(np.float64)
    return found


def with_limit(guard: Guard, limit: float) -> Guard:
    """The guard in units of a limit, so that 1 is the limit; unchanged for +inf."""
    if not 0 < limit < np.inf:  # off, or constant features: every difference is infinitely far
        return guard
    return Guard(guard.centre, (guard.whiten / limit).astype(np.float32))
