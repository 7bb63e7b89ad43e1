"""The projection of the signal ``projected_norm``."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skipserve.routing.exits import Matrix

# Share of the mean variance added to the within-class covariance before it is inverted.
RIDGE = 1e-3


def fisher(means: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Fisher's discriminant directions of the network's own answers.

    Fisher's discriminant (1936), in closed form: whiten within the classes, keep the span of the
    class means. A row far from the middle of that span is settled.

    Args:
        means: Streams averaged over positions [N, width]; rows that overflow are left out.
        labels: What full depth answers [N].

    Returns:
        Weights [width, k] and offset [k].
    """
    finite = np.isfinite(means).all(axis=1)
    x, labels = means[finite].astype(np.float64), labels[finite]
    centre = x.mean(axis=0)
    classes, place = np.unique(labels, return_inverse=True)
    middles = np.stack([x[place == i].mean(axis=0) for i in range(len(classes))])
    within = x - middles[place]
    scatter = within.T @ within / len(within)
    scatter += RIDGE * np.trace(scatter) / len(scatter) * np.eye(len(scatter))
    whiten = np.linalg.inv(np.linalg.cholesky(scatter))
    _, _, directions = np.linalg.svd((middles - centre) @ whiten.T, full_matrices=False)
    kept = max(len(classes) - 1, 1)
    projection = (directions[:kept] @ whiten).T
    return projection.astype(np.float32), -(centre @ projection).astype(np.float32)
