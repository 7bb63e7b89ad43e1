"""Guards: the unfamiliar is never skipped.

One stands at every cut from depth 0 on, and they accumulate: any single one lets some constant or
some noise pass (docs/any-network.md).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.exits import Guard

# Share of the mean variance added in every direction before it is divided by.
RIDGE = 1e-3
# Instead of no variance at all, where features never vary; its root has an inverse in FP32.
SMALLEST = 1e-36
# Wider features are first projected at random to so many numbers (Johnson and Lindenstrauss, 1984):
# a square matrix would cost as much as a block.
WIDEST = 1024
MOST_ROWS = 20_000


def fit_guard(features: NDArray[np.float32], seed: int = 0) -> Guard:
    """Whiten the features of known rows.

    Args:
        features: Of uncorrupted rows [N, features].
        seed: Of the projection, where there is one.
    """
    x = np.asarray(features[:MOST_ROWS], dtype=np.float64)
    x = x[np.isfinite(x).all(axis=1)]
    centre = x.mean(axis=0)
    project = np.eye(x.shape[1])
    if x.shape[1] > WIDEST:
        random = np.random.default_rng(seed)
        project = random.standard_normal((x.shape[1], WIDEST)) / np.sqrt(WIDEST)
    covariance = np.atleast_2d(np.cov(((x - centre) @ project).T))
    ridge = max(RIDGE * np.trace(covariance) / len(covariance), SMALLEST)
    covariance += ridge * np.eye(len(covariance))
    values, vectors = np.linalg.eigh(covariance)
    whiten = project @ (vectors / np.sqrt(values))
    return Guard(centre.astype(np.float32), whiten.astype(np.float32))


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


def scaled(guard: Guard, limit: float) -> Guard:
    """The same guard with its limit divided out, so that 1 is the limit; as it is for +inf."""
    if not 0 < limit < np.inf:  # off, or nothing ever varied: whatever differs is far
        return guard
    return Guard(guard.centre, (guard.whiten / limit).astype(np.float32))
